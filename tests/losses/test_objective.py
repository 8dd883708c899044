"""A method's weighted sum of terms, and its parameters in the optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skd.losses.discovery import term_class
from skd.losses.methods import needs_teacher
from skd.losses.objective import Objective
from skd.losses.term import Alone, Batch, Term, TermContext
from skd.models.network import Outputs
from skd.study.sheet import StudyError
from skd.study.spec import MethodSpec
from tests.builders.losses import draw, make_outputs
from tests.builders.objectives import (
    CLASSES,
    SEEN,
    Learned,
    chosen,
    make_batch,
    make_objective,
    terms,
)


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
        # a listed sum is recognised in any order and within longer sums
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
    simplified = 4.0 * torch.softmax(raw / 4.0, 1)  # zero attention output: z' = T·h
    parts = [(0.1, ce_reference(batch)), (0.9, kd_reference(batch, raw))]
    assert_sums(spec, [*parts, (0.9, kd_reference(batch, simplified))])


def test_standardised_terms_see_z_scores_of_both_sides():
    spec = chosen({"like": "skd+kd", "settings": {"kd": {"standardise": True, "temperature": 2.0}}})
    batch = make_batch()

    def z(logits: Tensor) -> Tensor:
        rows = logits.detach().numpy()
        scores = (rows - rows.mean(1, keepdims=True)) / rows.std(1, ddof=1, keepdims=True)
        return torch.from_numpy(scores)

    student = Outputs(z(batch.student.logits), (), (), batch.student.pooled)
    standardised = replace(batch, student=student)
    expected, _ = kd_reference(standardised, z(batch.teacher.logits), 2.0)
    losses = make_objective(spec)(batch)
    assert losses.by_term["kd"].item() == pytest.approx(expected, rel=1e-6)
    # the softened logits, a shift of z/T, have the same z-scores as the raw ones
    assert losses.by_term["kd on simplified"].item() == pytest.approx(expected, rel=1e-6)
    ce, _ = ce_reference(batch)  # cross-entropy sees the logits themselves
    assert losses.by_term["cross_entropy"].item() == pytest.approx(ce, rel=1e-9)


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
        with pytest.raises(StudyError, match="term crd reads no teacher logits"):
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
        assert losses.by_term["kd"].item() == pytest.approx(kd, rel=1e-9)  # before its weight


def test_losses_need_an_epoch_first():
    spec = chosen("kd")
    nothing = Outputs(torch.zeros(1, CLASSES), (), (), torch.zeros(1, CLASSES))
    objective = Objective(spec, TermContext(CLASSES, torch.arange(9), 0, nothing, nothing))
    with pytest.raises(RuntimeError, match="begin_epoch first"):
        objective(make_batch())


def test_labels_distinguish_terms():
    objective = make_objective(chosen("skd+kd"))
    names = {"cross_entropy", "kd", "kd on simplified"}
    assert set(objective(make_batch()).by_term) == names
    twice = [
        {"term": "kd", "temperature": t, "teacher": teacher} for t in (1, 2, 3) for teacher in SEEN
    ]
    objective = make_objective(chosen({"terms": twice, "simplifier": {"objective": "anchored"}}))
    losses = objective(make_batch())
    suffixes = ("", " #2", " #3")
    assert set(losses.by_term) == (
        {"cross_entropy", "simplifier"}
        | {f"kd{suffix}" for suffix in suffixes}
        | {f"kd on simplified{suffix}" for suffix in suffixes}
    )
    batch = make_batch()
    for t, suffix in zip((1, 2, 3), suffixes, strict=True):
        expected, _ = kd_reference(batch, batch.teacher.logits, t)
        assert losses.by_term[f"kd{suffix}"].item() == pytest.approx(expected, rel=1e-9)


# Batches that are divided among processes or into parts.


@pytest.mark.parametrize(
    ("method", "part", "words"),
    [
        ("student", 3, ()),
        ("kd+dkd", 3, ()),
        ("kd+sp", 64, ("sp compares the images",)),
        ("rkd+sp", 64, ("rkd compares the images", "sp compares the images")),
        ("skd", 64, ("in the simplifier, all images", "set its `group` to 64 or a divisor")),
        ({"like": "skd", "simplifier": {"axis": "classes"}}, 64, ()),
        ({"like": "skd", "simplifier": {"group": 64}}, 64, ()),
        ({"like": "skd", "simplifier": {"group": 64}}, 128, ()),
        (
            {"like": "skd", "simplifier": {"group": 64}},
            32,
            ("groups of 64 images do not divide a part of 32", "set its `group` to 32"),
        ),
        ({"like": "skd", "simplifier": {"group": 48}}, 64, ("groups of 48",)),
        ("skd+pkt", 64, ("pkt compares the images", "in the simplifier, all images")),
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
    results = []
    for parts in (1, 3):
        module = make_objective(spec)
        for place, parameter in enumerate(module.simplifier.parameters()):
            parameter.data = draw(place, tuple(parameter.shape), 0.5)
        batch, size = make_batch(count=6), 6 // parts
        assert module.partition_problem(size) is None
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
            losses = module(part)
            total = total + losses.total / parts
        total.backward()
        slopes = [batch.student.logits.grad, *(p.grad for p in module.simplifier.parameters())]
        results.append([total.detach(), *slopes])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


def test_after_a_step_every_term_does_its_own(monkeypatch):
    calls = []
    for name in ("kd", "dkd"):
        monkeypatch.setattr(
            term_class(name), "after_step", lambda self, peers: calls.append((type(self), peers))
        )
    peers = Alone()
    make_objective(chosen("skd+kd")).after_step(peers)
    assert calls == [(term_class("kd"), peers)] * 2
    assert Term.after_step(make_objective(chosen("student")).terms["cross_entropy"], peers) is None


@pytest.mark.parametrize("field", ["weight", "cross_entropy"])
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf])
def test_a_term_that_redeclares_its_weights_keeps_their_check(field, value):
    with pytest.raises(ValueError, match=r"must be 0 or more|finite number"):
        Learned.Settings(**{field: value})


def test_cross_entropy_has_no_smoothing():
    batch = make_batch()
    expected, _ = ce_reference(batch)
    losses = make_objective(chosen("student"))(batch)
    assert losses.by_term["cross_entropy"].item() == pytest.approx(expected, rel=1e-12)
    assert losses.diagnostics == {}
