"""From a method's name to its weighted sum, and from the sum to the optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import skd.losses.objective
from skd.losses.discovery import term_class
from skd.losses.methods import method_names, needs_teacher, resolve_method
from skd.losses.objective import Objective
from skd.losses.term import Alone, Batch, Term, TermContext, TermSettings
from skd.models.network import Outputs
from skd.randomness import Draws
from skd.study.sheet import SheetMethod, StudyError
from skd.study.spec import MethodSpec, Recipe, SimplifierSpec, TermSpec
from skd.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from tests.builders.losses import make_outputs

CLASSES = 7


def draw(seed: int, shape: tuple[int, ...], scale: float = 3.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, shape))


def chosen(method: str | dict[str, Any], **shared: Any) -> MethodSpec:
    written = {"name": method} if isinstance(method, str) else {"name": "mine", **method}
    return resolve_method(SheetMethod.model_validate(written), shared)


def terms(spec: MethodSpec) -> list[tuple[str, float, str]]:
    return [(t.term, t.settings["weight"], t.settings["teacher"]) for t in spec.terms]


def make_objective(spec: MethodSpec, epoch: int = 1) -> Objective:
    nothing = Outputs(torch.zeros(1, CLASSES), (), (), torch.zeros(1, CLASSES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Objective(spec, TermContext(CLASSES, torch.arange(9), 0, nothing, nothing)).double()
    made.begin_epoch(epoch)
    return made


def make_batch(epoch: int = 1, count: int = 5) -> Batch:
    student, teacher = draw(1, (count, CLASSES)).requires_grad_(), draw(2, (count, CLASSES))
    outputs = [Outputs(x, (), (), x) for x in (student, teacher)]
    return Batch(*outputs, torch.arange(count) % CLASSES, torch.arange(count), epoch, Draws(0))


def ce_reference(batch: Batch) -> tuple[float, Tensor]:
    """Mean cross-entropy and its derivative (q - onehot)/B."""
    q = torch.softmax(batch.student.logits.detach(), 1)
    hot = torch.eye(CLASSES, dtype=q.dtype)[batch.target]
    value = -sum(math.log(q[i, y]) for i, y in enumerate(batch.target.tolist())) / len(q)
    return value, (q - hot) / len(q)


def kd_reference(batch: Batch, teacher: Tensor, t: float = 4.0) -> tuple[float, Tensor]:
    """T²·KL(p ‖ q)/B and its derivative T(q - p)/B."""
    q, p = torch.softmax(batch.student.logits.detach() / t, 1), torch.softmax(teacher / t, 1)
    pairs = zip(p.flatten().tolist(), q.flatten().tolist(), strict=True)
    return t * t * sum(a * math.log(a / b) for a, b in pairs) / len(q), t * (q - p) / len(q)


def assert_sums(spec: MethodSpec, parts: Sequence[tuple[float, tuple[float, Tensor]]]) -> None:
    """The objective's total and student gradient are the sum of weight · (value, gradient)."""
    batch = make_batch()
    total = make_objective(spec)(batch).total
    total.backward()
    assert total.shape == ()
    assert total.item() == pytest.approx(sum(w * value for w, (value, _) in parts), rel=1e-9)
    gradient = sum(w * g for w, (_, g) in parts)
    torch.testing.assert_close(batch.student.logits.grad, gradient, rtol=1e-9, atol=1e-12)


# Methods by name.


@pytest.mark.parametrize(
    ("name", "expected", "simplified"),
    [
        ("student", [("cross_entropy", 1.0, "raw")], False),
        ("kd", [("cross_entropy", 0.1, "raw"), ("kd", 0.9, "raw")], False),
        ("skd", [("cross_entropy", 0.1, "raw"), ("kd", 0.9, "simplified")], True),
        (
            "skd+kd",
            [("cross_entropy", 0.1, "raw"), ("kd", 0.9, "simplified"), ("kd", 0.9, "raw")],
            True,
        ),
        # cross-entropy counts once, with the largest weight of the parts
        ("student+kd", [("cross_entropy", 1.0, "raw"), ("kd", 0.9, "raw")], False),
        # a listed sum is itself, in any order and within longer ones
        ("skd+dkd", [("cross_entropy", 1.0, "raw"), ("dkd", 1.0, "simplified")], True),
        ("dkd+skd", [("cross_entropy", 1.0, "raw"), ("dkd", 1.0, "simplified")], True),
        (
            "dkd+sp+skd",
            [("cross_entropy", 1.0, "raw"), ("dkd", 1.0, "simplified"), ("sp", 3000.0, "raw")],
            True,
        ),
        ("kd+dkd", [("cross_entropy", 1.0, "raw"), ("kd", 0.9, "raw"), ("dkd", 1.0, "raw")], False),
    ],
)
def test_named_methods_have_the_references_terms_and_weights(name, expected, simplified):
    spec = chosen(name)
    assert sorted(terms(spec)) == sorted(expected)
    assert (spec.simplifier is not None) == simplified
    assert needs_teacher(spec) == (name != "student")
    for term in spec.terms:
        assert "cross_entropy" not in term.settings
        assert term.settings["warmup_epochs"] == (20 if term.term == "dkd" else 0)
        assert term.settings.get("temperature", 4.0) == 4.0
    if simplified:
        assert spec.simplifier.settings["learning_rate_multiplier"] == 0.00001


def test_totals_are_the_weighted_sums():
    batch = make_batch()
    ce, raw = ce_reference(batch), kd_reference(batch, batch.teacher.logits)
    assert_sums(chosen("student"), [(1.0, ce)])
    assert_sums(chosen("kd"), [(0.1, ce), (0.9, raw)])
    # at initialisation the simplifier is an identity: SKD is KD, and skd+kd is KD twice
    assert_sums(chosen("skd"), [(0.1, ce), (0.9, raw)])
    assert_sums(chosen("skd+kd"), [(0.1, ce), (1.8, raw)])
    cooler = kd_reference(batch, batch.teacher.logits, 2.0)
    written = {"like": "kd", "settings": {"kd": {"temperature": 2.0, "weight": 3.0}}}
    assert_sums(chosen(written), [(0.1, ce), (3.0, cooler)])


def test_raw_and_simplified_terms_see_their_own_teacher():
    spec = chosen({"like": "skd+kd", "simplifier": {"softening": "softmax"}})
    batch = make_batch()
    raw = batch.teacher.logits
    seen = 4.0 * torch.softmax(raw / 4.0, 1)  # zero attention output: z' = T·h
    parts = [(0.1, ce_reference(batch)), (0.9, kd_reference(batch, raw))]
    assert_sums(spec, [*parts, (0.9, kd_reference(batch, seen))])


def test_standardised_terms_see_z_scores_of_both_sides():
    spec = chosen({"like": "skd+kd", "settings": {"kd": {"standardise": True, "temperature": 2.0}}})
    batch = make_batch()

    def z(logits: Tensor) -> Tensor:
        rows = logits.detach().numpy()
        scores = (rows - rows.mean(1, keepdims=True)) / rows.std(1, ddof=1, keepdims=True)
        return torch.from_numpy(scores)

    student = Outputs(z(batch.student.logits), (), (), batch.student.pooled)
    seen = replace(batch, student=student)
    expected, _ = kd_reference(seen, z(batch.teacher.logits), 2.0)
    losses = make_objective(spec)(batch)
    assert losses.parts["kd"].item() == pytest.approx(expected, rel=1e-6)
    # the softened logits, a shift of z/T, have the same z-scores as the raw ones
    assert losses.parts["kd on simplified"].item() == pytest.approx(expected, rel=1e-6)
    ce, _ = ce_reference(batch)  # cross-entropy sees the logits themselves
    assert losses.parts["cross_entropy"].item() == pytest.approx(ce, rel=1e-9)


def test_a_name_twice_in_a_sum_is_refused():
    for name in ("kd+kd", "skd+dkd+skd"):
        with pytest.raises(StudyError, match=f"names {name[:1]}.* twice; to change a weight"):
            chosen(name)


@pytest.mark.parametrize(
    "idle", [{"cross_entropy": 3.0}, {"teacher": "raw"}, {"standardise": True}]
)
def test_cross_entropy_has_no_settings_of_what_it_does_not_read(idle):
    with pytest.raises(StudyError, match=f"cross_entropy has no '{next(iter(idle))}'"):
        chosen({"like": "kd", "settings": {"cross_entropy": idle}})


def test_what_reads_no_logits_takes_no_transformation_of_them():
    for change in ({"standardise": True}, {"teacher": "simplified"}):
        with pytest.raises(StudyError, match="term crd sees no teacher logits"):
            chosen({"terms": [{"term": "crd", **change}], "simplifier": {}})


def test_a_terms_initial_weights_do_not_depend_on_the_terms_beside_it():
    outputs = [make_outputs(seed, 4, [(3, 4, 4), (5, 2, 2)], CLASSES) for seed in (1, 2)]
    context = TermContext(CLASSES, torch.arange(20) % CLASSES, 3, *outputs)
    alone = Objective(chosen("crd"), context).state_dict()
    among = chosen({"like": "skd+fitnet+crd", "settings": {"fitnet": {"layer": 1}}})
    among = Objective(among, context).state_dict()
    assert alone.keys() < among.keys()
    weights = [name for name in alone if "log_normalisers" not in name]
    assert all(torch.equal(among[name], alone[name]) for name in weights)
    other = Objective(chosen("crd"), replace(context, seed=4)).state_dict()
    assert not any(torch.equal(alone[name], other[name]) for name in weights)


@settings(max_examples=25, deadline=None)
@given(st.just(0.0) | st.floats(1e-6, 5), st.floats(0.01, 5), st.floats(0.5, 8), st.integers(1, 8))
def test_skd_at_initialisation_is_kd(ce, weight, temperature, count):
    results = []
    for name in ("kd", "skd"):
        changes = {"cross_entropy": ce, "weight": weight, "temperature": temperature}
        batch = make_batch(count=count)
        total = make_objective(chosen({"like": name, "settings": {"kd": changes}}))(batch).total
        total.backward()
        results.append((total.detach(), batch.student.logits.grad))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_warm_up_rises_linearly_from_the_first_epoch(warmup):
    spec = chosen({"like": "kd", "settings": {"kd": {"warmup_epochs": warmup}}})
    objective = make_objective(spec)
    ce, _ = ce_reference(make_batch())
    kd, _ = kd_reference(make_batch(), make_batch().teacher.logits)
    for epoch in (1, 2, 3, 4, 5, 200):
        factor = min(epoch / warmup, 1) if warmup else 1
        objective.begin_epoch(epoch)
        losses = objective(make_batch(epoch))
        assert losses.total.item() == pytest.approx(0.1 * ce + factor * 0.9 * kd, rel=1e-9)
        assert losses.parts["kd"].item() == pytest.approx(kd, rel=1e-9)  # before its weight


def test_losses_need_an_epoch_first():
    spec = chosen("kd")
    nothing = Outputs(torch.zeros(1, CLASSES), (), (), torch.zeros(1, CLASSES))
    objective = Objective(spec, TermContext(CLASSES, torch.arange(9), 0, nothing, nothing))
    with pytest.raises(RuntimeError, match="begin_epoch first"):
        objective(make_batch())


def test_labels_tell_terms_apart():
    objective = make_objective(chosen("skd+kd"))
    names = {"cross_entropy", "kd", "kd on simplified"}
    assert set(objective(make_batch()).parts) == names
    twice = [{"term": "kd", "temperature": t, "teacher": who} for t in (1, 2, 3) for who in SEEN]
    objective = make_objective(chosen({"terms": twice, "simplifier": {"objective": "anchored"}}))
    losses = objective(make_batch())
    suffixes = ("", " #2", " #3")
    assert set(losses.parts) == (
        {"cross_entropy", "simplifier"}
        | {f"kd{suffix}" for suffix in suffixes}
        | {f"kd on simplified{suffix}" for suffix in suffixes}
    )
    batch = make_batch()
    for t, suffix in zip((1, 2, 3), suffixes, strict=True):
        expected, _ = kd_reference(batch, batch.teacher.logits, t)
        assert losses.parts[f"kd{suffix}"].item() == pytest.approx(expected, rel=1e-9)


SEEN = ("raw", "simplified")


def test_method_names_are_the_listed_ones_and_the_terms():
    assert {"student", "skd", "kd"} <= set(method_names())
    assert "cross_entropy" not in method_names()


# Batches that are divided among processes, or seen in parts.


@pytest.mark.parametrize(
    ("method", "part", "words"),
    [
        ("student", 3, ()),
        ("kd+dkd", 3, ()),
        ("kd+sp", 64, ("sp compares the images",)),
        ("rkd+sp", 64, ("rkd compares the images", "sp compares the images")),
        ("skd", 64, ("simplifier lets all images", "set its `group` to 64 or a divisor")),
        ({"like": "skd", "simplifier": {"axis": "classes"}}, 64, ()),
        ({"like": "skd", "simplifier": {"group": 64}}, 64, ()),
        ({"like": "skd", "simplifier": {"group": 64}}, 128, ()),
        (
            {"like": "skd", "simplifier": {"group": 64}},
            32,
            ("groups of 64 images do not fill a part of 32", "set its `group` to 32"),
        ),
        ({"like": "skd", "simplifier": {"group": 48}}, 64, ("groups of 48",)),
        ("skd+pkt", 64, ("pkt compares the images", "simplifier lets all images")),
    ],
)
def test_what_couples_a_batchs_images_is_named(method, part, words):
    reason = make_objective(chosen(method)).partition_problem(part)
    assert bool(reason) == bool(words)
    for word in words:
        assert word in reason


@pytest.mark.parametrize("objective", ["joint", "anchored"])
def test_a_batch_in_parts_is_the_whole_one_where_nothing_couples_them(objective):
    changes = {"group": 2, "objective": objective}
    spec = chosen({"like": "skd+dkd+kd", "simplifier": changes})
    found = []
    for parts in (1, 3):
        made = make_objective(spec)
        for place, parameter in enumerate(made.simplifier.parameters()):
            parameter.data = draw(place, tuple(parameter.shape), 0.5)
        batch, size = make_batch(count=6), 6 // parts
        assert made.partition_problem(size) is None
        total = 0.0
        for first in range(0, 6, size):
            rows = slice(first, first + size)
            part = replace(
                batch,
                student=replace(batch.student, logits=batch.student.logits[rows]),
                teacher=replace(batch.teacher, logits=batch.teacher.logits[rows]),
                target=batch.target[rows],
                indices=batch.indices[rows],
                first=first,
            )
            losses = made(part)
            total = total + losses.total / parts
        total.backward()
        slopes = [batch.student.logits.grad, *(p.grad for p in made.simplifier.parameters())]
        found.append([total.detach(), *slopes])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_after_a_step_every_term_does_its_own(monkeypatch):
    seen = []
    for name in ("kd", "dkd"):
        monkeypatch.setattr(
            term_class(name), "after_step", lambda self, peers: seen.append((type(self), peers))
        )
    peers = Alone()
    make_objective(chosen("skd+kd")).after_step(peers)
    assert seen == [(term_class("kd"), peers)] * 2
    assert Term.after_step(make_objective(chosen("student")).terms["cross_entropy"], peers) is None


# Methods as a sheet describes them.


def test_terms_written_out_are_the_named_method():
    by_hand = chosen({"terms": [{"term": "kd", "teacher": "simplified"}], "simplifier": {}})
    assert by_hand == chosen("skd") == chosen({"like": "skd"})
    both = [{"term": "kd", "teacher": who} for who in ("simplified", "raw")]
    assert chosen({"terms": both, "simplifier": {}}) == chosen("skd+kd")


def test_a_written_cross_entropy_weight_wins_over_the_largest():
    written = [{"term": "kd"}, {"term": "cross_entropy", "weight": 0.03}]
    assert terms(chosen({"terms": written}))[0] == ("cross_entropy", 0.03, "raw")
    own = {"like": "skd+kd", "settings": {"cross_entropy": {"weight": 0.7}}}
    assert terms(chosen(own))[0] == ("cross_entropy", 0.7, "raw")
    largest = [{"term": "kd"}, {"term": "kd", "temperature": 1, "cross_entropy": 0.6}]
    assert terms(chosen({"terms": largest}))[0] == ("cross_entropy", 0.6, "raw")


def test_settings_come_from_the_study_then_the_written_term_then_the_method():
    def temperature(written: bool, own: bool, **shared: Any) -> float:
        method: dict[str, Any] = {"terms": [{"term": "kd"}]}
        if written:
            method["terms"][0]["temperature"] = 3
        if own:
            method["settings"] = {"kd": {"temperature": 5}}
        return chosen(method, **shared).terms[1].settings["temperature"]

    study = {"kd": {"temperature": 2, "weight": 0.5}}
    assert temperature(False, False) == 4
    assert temperature(False, False, **study) == 2
    assert temperature(True, False, **study) == 3
    assert temperature(True, True, **study) == 5
    assert temperature(False, True, **study) == 5
    assert terms(chosen("skd+kd", **study))[1:] == [("kd", 0.5, "simplified"), ("kd", 0.5, "raw")]


def test_simplifier_settings_take_the_same_precedence():
    def heads(method: dict[str, Any], **shared: Any) -> int:
        return chosen({"like": "skd", **method}, **shared).simplifier.settings["heads"]

    study = {"simplifier": {"heads": 2}}
    assert heads({}) == 1
    assert heads({}, **study) == 2
    assert heads({"simplifier": {"heads": 3}}, **study) == 3
    own = {"settings": {"simplifier": {"heads": 5}}}
    assert heads({"simplifier": {"heads": 3}, **own}, **study) == 5
    assert chosen("kd", **study).simplifier is None


@pytest.mark.parametrize(
    ("method", "shared", "words"),
    [
        ("skdd", {}, ("unknown method 'skdd'", "did you mean 'skd'", "student", "kd")),
        ("skd+nothing", {}, ("unknown method 'nothing'", "student", "skd", "kd")),
        ({"like": "nothing"}, {}, ("unknown method 'nothing'", "student", "skd")),
        ({"terms": [{"term": "kdd"}]}, {}, ("unknown term 'kdd'", "cross_entropy", "kd")),
        ({"terms": [{"temperature": 1}]}, {}, ("unknown term", "cross_entropy", "kd")),
        ({"terms": [{"term": "kd", "temp": 1}]}, {}, ("'temp'", "temperature", "weight")),
        ("kd", {"kd": {"temp": 1}}, ("'temp'", "temperature", "weight")),
        ("kd", {"kdd": {"temperature": 1}}, ("'kdd'", "kd", "simplifier")),
        ("kd", {"kd": {"temperature": -1}}, ("kd", "temperature", "-1")),
        ({"like": "kd", "settings": {"kdd": {}}}, {}, ("'kdd'", "kd", "simplifier")),
        ({"like": "skd", "simplifier": {"head": 1}}, {}, ("'head'", "heads", "width")),
        ("skd", {"simplifier": {"axis": "rows"}}, ("axis", "'batch'", "'classes'")),
        ({"like": "kd", "terms": [{"term": "kd"}]}, {}, ("'terms'", "'like'")),
        ({"like": "kd", "simplifier": {}}, {}, ("simplifier", "teacher: simplified")),
        ({"terms": [{"term": "kd", "teacher": "simplified"}]}, {}, ("simplifier", "both")),
        ("kd", {"kd": {"teacher": "simplified"}}, ("simplifier", "both")),
        ("kd", {"kd": {"weight": -0.5}}, ("weight", "-0.5")),
        ("kd", {"kd": {"weight": math.nan}}, ("weight", "nan")),
        ("kd", {"kd": {"weight": math.inf}}, ("weight", "inf")),
        ("kd", {"kd": {"temperature": math.inf}}, ("temperature", "inf")),
        ("skd", {"simplifier": {"temperature": math.inf}}, ("temperature", "inf")),
        ("skd", {"simplifier": {"anchor": math.inf}}, ("anchor", "inf")),
        ({"terms": [{"term": ["kd"]}]}, {}, ("unknown term", "cross_entropy", "kd")),
        # a method's own settings for a part that it has not got would do nothing
        ({"like": "kd", "settings": {"simplifier": {"heads": 2}}}, {}, ("simplifier",)),
        ({"like": "student", "settings": {"kd": {"temp": 1}}}, {}, ("kd",)),
        ("kd", {"kd": {"cross_entropy": -0.5}}, ("cross_entropy", "-0.5")),
        ("student", {"cross_entropy": {"weight": -1}}, ("weight", "-1")),
        ("student", {"cross_entropy": {"weight": 0}}, ("every term has weight 0",)),
        ("skd", {"kd": {"weight": 0, "cross_entropy": 0}}, ("every term has weight 0",)),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(method, shared, words):
    with pytest.raises(StudyError) as error:
        chosen(method, **shared)
    for word in words:
        assert word in str(error.value)


def test_zero_weights_are_allowed_beside_others():
    changes = {"weight": 0, "cross_entropy": 1}
    assert [w for _, w, _ in terms(chosen({"like": "kd", "settings": {"kd": changes}}))] == [1, 0]


# A term with parameters, as a new baseline would bring.


class Learned(Term):
    class Settings(TermSettings):
        weight: float = 3.0
        cross_entropy: float = 2.0

    def __init__(self, own: Settings, context: TermContext) -> None:
        super().__init__(own, context)
        self.layer = nn.Linear(context.num_classes, 1)
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, batch: Batch) -> Tensor:
        return self.layer(batch.student.logits).mean()


@pytest.mark.parametrize("field", ["weight", "cross_entropy"])
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf])
def test_a_term_that_redeclares_its_weights_keeps_their_check(field, value):
    with pytest.raises(ValueError, match=r"must be 0 or more|finite number"):
        Learned.Settings(**{field: value})


def learned_objective(monkeypatch: pytest.MonkeyPatch, **simplifier: Any) -> Objective:
    known = {"learned": Learned}
    monkeypatch.setattr(skd.losses.objective, "term_class", lambda n: known.get(n) or term_class(n))
    made = [
        TermSpec(term=name, version=1, settings={"teacher": who})
        for name, who in (("learned", "raw"), ("learned", "raw"), ("kd", "simplified"))
    ]
    return make_objective(
        MethodSpec(terms=made, simplifier=SimplifierSpec(version=1, settings=simplifier))
    )


def make_student() -> nn.Module:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten())
    student.append(nn.Linear(4, CLASSES))
    student.register_parameter("unused", nn.Parameter(torch.ones(2), requires_grad=False))
    return student.double()


def test_parameter_groups_carry_their_multipliers(monkeypatch):
    objective = learned_objective(monkeypatch, learning_rate_multiplier=0.25)
    groups = list(objective.parameter_groups())
    assert [(len(parameters), multiplier) for parameters, multiplier in groups] == [
        (4, 1.0),
        (6, 0.25),
    ]
    assert next(make_objective(chosen("skd+kd")).parameter_groups())[1] == 0.00001
    assert list(make_objective(chosen("kd")).parameter_groups()) == []
    frozen = {"like": "skd", "simplifier": {"trainable": False}}
    assert list(make_objective(chosen(frozen)).parameter_groups()) == []


def test_each_trainable_parameter_is_in_the_optimiser_once_with_weight_decay(monkeypatch):
    student, objective = make_student(), learned_objective(monkeypatch)
    recipe = Recipe(momentum=0.8, nesterov=True, weight_decay=0.02)
    optimizer = make_optimizer(recipe, student, objective)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    everything = [*student.parameters(), *objective.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in everything if p.requires_grad}
    assert len(everything) - len(held) == 3  # `unused`, and `fixed` of either learned term
    for group in optimizer.param_groups:
        assert (group["weight_decay"], group["momentum"]) == (0.02, 0.8)
        assert (group["nesterov"], group["dampening"]) == (True, 0)


def test_a_step_decays_every_parameter_by_its_own_rate(monkeypatch):
    student = make_student()
    objective = learned_objective(monkeypatch, learning_rate_multiplier=0.25)
    recipe = Recipe(weight_decay=0.01)
    optimizer = make_optimizer(recipe, student, objective)
    set_learning_rate(optimizer, 0.2)
    named = [*student.named_parameters(), *objective.named_parameters()]
    expected = []
    for name, parameter in named:
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        rate = 0.2 * (0.25 if name.startswith("simplifier.") else 1) * parameter.requires_grad
        expected.append(parameter.detach() * (1 - rate * 0.01))
    optimizer.step()
    for (name, parameter), value in zip(named, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-14, atol=0, msg=name)


def test_default_schedule_is_the_common_recipes():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size) == (240, 64)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, False, 5e-4)
    optimizer = make_optimizer(recipe, make_student(), make_objective(chosen("skd")))
    for epoch in range(1, 241):
        rate = 0.05 if epoch <= 150 else 0.005 if epoch <= 180 else 0.0005
        rate = 0.00005 if epoch > 210 else rate
        assert learning_rate(recipe, epoch) == pytest.approx(rate, rel=1e-12)
        set_learning_rate(optimizer, learning_rate(recipe, epoch))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rate, rate * 0.00001], rel=1e-12)


def test_schedule_of_a_recipe_of_its_own():
    recipe = Recipe(learning_rate=1.0, milestones=(2, 3), learning_rate_decay=0.5)
    assert [learning_rate(recipe, epoch) for epoch in range(1, 6)] == [1, 1, 0.5, 0.25, 0.25]
    assert learning_rate(Recipe(milestones=()), 240) == 0.05


def test_cross_entropy_has_no_smoothing():
    batch = make_batch()
    expected, _ = ce_reference(batch)
    losses = make_objective(chosen("student"))(batch)
    assert losses.parts["cross_entropy"].item() == pytest.approx(expected, rel=1e-12)
    assert losses.diagnostics == {}
