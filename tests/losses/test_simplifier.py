"""The simplifier against its formula in loops, its identity with KD, its gradients, its control."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.kd import kd_loss
from skd.common.frozen import canonical
from skd.losses.objective import Objective
from skd.losses.simplifier import Simplifier, SimplifierSettings
from skd.losses.term import Batch, TermContext
from skd.models.network import Outputs
from skd.randomness import Draws
from skd.store.collapse import detect_collapse
from skd.store.records import EpochMetrics
from skd.study.spec import MethodSpec, SimplifierSpec, TermSpec

FORMS = [
    {"axis": axis, "values": values, "combination": combination, "layer_norm": norm, "heads": heads}
    for axis, values, combination, norm, heads in itertools.product(
        ("batch", "classes"),
        ("projected", "rows"),
        ("residual", "mean", "attention"),
        (True, False),
        (1, 2),
    )
]


def draw(seed: int, shape: tuple[int, ...], scale: float = 3.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, shape))


def build(classes: int, seed: int | None = 0, **changes: Any) -> Simplifier:
    """A float64 simplifier; with a seed, all its weights are random, as if it had been trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        simplifier = Simplifier(SimplifierSettings(**changes), classes).double()
    if seed is not None:
        for place, parameter in enumerate(simplifier.parameters()):
            parameter.data = draw(1000 * seed + place, tuple(parameter.shape), 0.7)
    return simplifier


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = top + math.log(math.fsum(math.exp(value - top) for value in row))
    return [value - total for value in row]


def softmax(row: list[float]) -> list[float]:
    return [math.exp(value) for value in log_softmax(row)]


def kl(p_logits: list[list[float]], q_logits: list[list[float]], t: float) -> float:
    total = 0.0
    for p_row, q_row in zip(p_logits, q_logits, strict=True):
        log_p = log_softmax([x / t for x in p_row])
        log_q = log_softmax([x / t for x in q_row])
        total += math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
    return total / len(p_logits)


def entropy(logits: list[list[float]], t: float) -> float:
    rows = [log_softmax([x / t for x in row]) for row in logits]
    return -math.fsum(math.exp(a) * a for row in rows for a in row) / len(rows)


def attention(tokens: list[list[float]], mixed: list[list[float]], w: dict, s: Any) -> np.ndarray:
    """What each token gets: over heads, of projections through W_o, or of the rows themselves."""
    width = len(w["query.weight"])
    d = width // s.heads
    count = len(tokens)

    def project(name: str, token: list[float], head: int) -> list[float]:
        rows = w[f"{name}.weight"][head * d : (head + 1) * d]
        return [math.fsum(a * b for a, b in zip(row, token, strict=True)) for row in rows]

    result = []
    for i in range(count):
        head_weights = []
        for head in range(s.heads):
            q = project("query", tokens[i], head)
            keys = [project("key", token, head) for token in tokens]
            scores = [sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(d) for k in keys]
            head_weights.append(softmax(scores))
        if s.values == "rows":
            mean = [sum(h[j] for h in head_weights) / s.heads for j in range(count)]
            result.append(
                [sum(mean[j] * mixed[j][c] for j in range(count)) for c in range(len(mixed[0]))]
            )
            continue
        joined: list[float] = []
        for head, weights in enumerate(head_weights):
            values = [project("value", token, head) for token in tokens]
            joined += [sum(weights[j] * values[j][e] for j in range(count)) for e in range(d)]
        result.append(
            [sum(a * b for a, b in zip(row, joined, strict=True)) for row in w["output.weight"]]
        )
    return np.array(result)


def reference(simplifier: Simplifier, logits: Tensor) -> np.ndarray:
    """z' = T·s by the formulas of docs and paper: softening, attention, combination."""
    s = simplifier.settings
    w = {name: value.tolist() for name, value in simplifier.state_dict().items()}
    softened, normed = [], []
    for row in logits.tolist():
        scaled = [x / s.temperature for x in row]
        kinds = {"log_softmax": log_softmax, "softmax": softmax, "scaled": list}
        h = kinds[s.softening](scaled)
        softened.append(h)
        if s.layer_norm:
            mean = sum(h) / len(h)
            spread = math.sqrt(sum((x - mean) ** 2 for x in h) / len(h) + 1e-5)
            gain, bias = w["norm.weight"], w["norm.bias"]
            h = [g * (x - mean) / spread + b for x, g, b in zip(h, gain, bias, strict=True)]
        normed.append(h)
    if s.axis == "batch":
        attended = attention(normed, softened, w, s)
    else:
        attended = np.array(
            [
                attention([[x] for x in tokens], [[x] for x in rows], w, s)[:, 0]
                for tokens, rows in zip(normed, softened, strict=True)
            ]
        )
    h = np.array(softened)
    combined = {"residual": h + attended, "mean": (h + attended) / 2, "attention": attended}
    return s.temperature * combined[s.combination]


def assert_matches(simplifier: Simplifier, logits: Tensor) -> None:
    got = simplifier(logits)
    assert got.shape == logits.shape
    np.testing.assert_allclose(got.detach(), reference(simplifier, logits), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_every_form_follows_the_formula(form):
    assert_matches(build(6, **form), draw(3, (5, 6)))


@pytest.mark.parametrize("axis", ["batch", "classes"])
@pytest.mark.parametrize("softening", ["log_softmax", "scaled", "softmax"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_every_softening_follows_the_formula(softening, axis, temperature):
    simplifier = build(6, softening=softening, axis=axis, temperature=temperature)
    assert_matches(simplifier, draw(3, (4, 6)))


@pytest.mark.parametrize(("values", "combination"), [("projected", "residual"), ("rows", "mean")])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_normalised_scaled_softening_teaches_as_log_softmax_does(values, combination, layer_norm):
    form = {"values": values, "combination": combination, "layer_norm": layer_norm}
    taught = [
        build(6, softening=softening, **form)(draw(3, (4, 6))).softmax(1)
        for softening in ("log_softmax", "scaled")
    ]
    assert torch.allclose(*taught, rtol=1e-9) == layer_norm


@pytest.mark.parametrize(("width", "heads"), [(4, 1), (4, 4), (10, 2), (9, 3)])
@pytest.mark.parametrize("axis", ["batch", "classes"])
def test_a_width_of_its_own_follows_the_formula(axis, width, heads):
    assert_matches(build(6, axis=axis, width=width, heads=heads), draw(3, (4, 6)))


@pytest.mark.parametrize("batch", [1, 16])
def test_small_last_batches_follow_the_formula(batch):
    assert_matches(build(20), draw(4, (batch, 20)))


def test_defaults_are_the_reference_form():
    chosen = SimplifierSettings()
    assert chosen.model_dump() == {
        "temperature": 4.0,
        "softening": "log_softmax",
        "axis": "batch",
        "group": None,
        "heads": 1,
        "width": None,
        "layer_norm": True,
        "values": "projected",
        "combination": "residual",
        "output_init": "zero",
        "trainable": True,
        "objective": "joint",
        "anchor": 1.0,
        "learning_rate_multiplier": 0.00001,
    }
    shapes = {name: tuple(p.shape) for name, p in build(7).named_parameters()}
    square = {f"{name}.weight": (7, 7) for name in ("query", "key", "value", "output")}
    assert shapes == {"norm.weight": (7,), "norm.bias": (7,), **square}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.integers(2, 9),
    st.floats(0.5, 10),
    st.floats(0.5, 10),
    st.sampled_from(["log_softmax", "scaled"]),
    st.sampled_from(["batch", "classes"]),
)
def test_identity_simplifier_is_kd_in_value_and_gradient(
    seed, batch, classes, t_simplifier, t_kd, softening, axis
):
    """A zero W_o leaves z less a constant a row, whatever the two temperatures are."""
    simplifier = build(classes, seed=None, temperature=t_simplifier, softening=softening, axis=axis)
    teacher = draw(seed, (batch, classes), 8.0)
    results = []
    for seen in (teacher, simplifier(teacher)):
        student = draw(seed + 1, (batch, classes)).requires_grad_()
        loss = kd_loss(student, seen, t_kd)
        loss.backward()
        results.append((loss.detach(), student.grad))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


def test_what_is_no_identity_differs_from_kd():
    teacher, student = draw(0, (4, 6)), draw(1, (4, 6))
    raw = kd_loss(student, teacher, 4.0)
    for form in ({"output_init": "default"}, {"softening": "softmax"}, {"values": "rows"}):
        assert not torch.isclose(kd_loss(student, build(6, None, **form)(teacher), 4.0), raw)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["projected", "rows"]), st.permutations(range(6)))
def test_batch_axis_commutes_with_permutations_of_the_batch(seed, values, order):
    simplifier, logits = build(5, seed % 100, values=values), draw(seed, (6, 5))
    torch.testing.assert_close(simplifier(logits[order]), simplifier(logits)[order])


def test_batch_axis_depends_on_the_batch_and_classes_axis_does_not():
    logits = draw(0, (6, 5))
    changed = torch.cat([logits[:1], draw(1, (3, 5))])
    for values in ("projected", "rows"):
        alone = build(5, axis="classes", values=values)
        torch.testing.assert_close(alone(changed)[0], alone(logits)[0], rtol=1e-12, atol=1e-12)
        mixing = build(5, axis="batch", values=values)
        assert not torch.allclose(mixing(changed)[0], mixing(logits)[0], rtol=1e-3)


# Groups.

GROUPED = [{}, {"values": "rows"}, {"heads": 2}, {"combination": "attention", "layer_norm": False}]


@pytest.mark.parametrize("form", GROUPED, ids=str)
@pytest.mark.parametrize(("batch", "group"), [(6, 3), (7, 3), (8, 3), (5, 1), (4, 4), (2, 3)])
def test_in_groups_each_group_follows_the_formula_by_itself(batch, group, form):
    simplifier, logits = build(6, group=group, **form), draw(3, (batch, 6))
    parts = [reference(simplifier, rows) for rows in logits.split(group)]
    expected = np.concatenate(parts)
    np.testing.assert_allclose(simplifier(logits).detach(), expected, rtol=1e-9, atol=1e-9)
    if group < batch:
        ungrouped = build(6, **form)(logits).detach()
        assert not np.allclose(ungrouped, expected, rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.integers(0, 5),
    st.sampled_from(["projected", "rows"]),
)
def test_a_group_of_the_whole_batch_or_more_is_none(seed, batch, more, values):
    logits, results = draw(seed, (batch, 6)), []
    for group in (None, batch + more):
        simplifier = build(6, seed % 100, group=group, values=values)
        mixed = simplifier(logits)
        slopes = torch.autograd.grad(mixed.square().sum(), list(simplifier.parameters()))
        results.append([mixed, *slopes])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_group_does_not_depend_on_the_others():
    simplifier, logits = build(5, group=3), draw(0, (8, 5))
    changed = torch.cat([logits[:3], draw(1, (5, 5))])
    before, after = simplifier(logits), simplifier(changed)
    torch.testing.assert_close(after[:3], before[:3], rtol=1e-12, atol=1e-12)
    assert not torch.isclose(after[3:], before[3:]).any()
    moved = logits.clone()
    moved[4] += draw(2, (5,))
    rows = (simplifier(moved) - before).abs().amax(dim=1) > 1e-6
    assert rows.tolist() == [False] * 3 + [True] * 3 + [False] * 2


def test_the_gradient_of_groups_is_the_sum_of_theirs():
    simplifier, logits = build(5, group=3), draw(0, (6, 5))
    whole, halves = (
        torch.autograd.grad(
            sum(simplifier(rows).square().sum() for rows in parts), list(simplifier.parameters())
        )
        for parts in ([logits], logits.split(3))
    )
    torch.testing.assert_close(whole, halves, rtol=1e-10, atol=1e-12)


def test_a_group_is_of_the_batchs_images_only_and_of_one_at_least():
    with pytest.raises(ValueError, match=r"group: 4 is for axis: batch.*leave group out"):
        SimplifierSettings(axis="classes", group=4)
    for group in (0, -1, 2.5):
        with pytest.raises(ValueError, match="group"):
            SimplifierSettings(group=group)


def test_a_group_is_part_of_a_runs_identity_and_none_is_not():
    assert "group" not in canonical(SimplifierSettings())
    assert canonical(SimplifierSettings(group=64))["group"] == 64
    assert SimplifierSettings.restore(canonical(SimplifierSettings())) == SimplifierSettings()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(5)))
def test_classes_axis_treats_classes_alike(seed, order):
    simplifier = build(5, seed % 100, axis="classes", layer_norm=False, width=3)
    logits = draw(seed, (4, 5))
    torch.testing.assert_close(simplifier(logits[:, order]), simplifier(logits)[:, order])


@pytest.mark.parametrize(("classes", "width", "heads"), [(10, None, 3), (10, 6, 4)])
def test_heads_must_divide_the_width(classes, width, heads):
    with pytest.raises(ValueError, match=rf"width {width or classes}.*{heads} heads"):
        Simplifier(SimplifierSettings(width=width, heads=heads), classes)


@pytest.mark.parametrize("axis", ["batch", "classes"])
@pytest.mark.parametrize("values", ["projected", "rows"])
def test_gradcheck_by_logits_and_by_parameters(axis, values):
    simplifier = build(4, axis=axis, values=values, heads=2)
    names = [name for name, _ in simplifier.named_parameters()]

    def call(logits: Tensor, *parameters: Tensor) -> Tensor:
        chosen = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(simplifier, chosen, (logits,))

    parameters = [p.detach().clone().requires_grad_() for p in simplifier.parameters()]
    assert torch.autograd.gradcheck(call, (draw(0, (3, 4)).requires_grad_(), *parameters))


# The simplifier at work in an objective.


def skd_objective(classes: int, seed: int | None = 0, **changes: Any) -> Objective:
    """0.1·CE + 0.9·KD on the simplified teacher, in float64."""
    terms = [
        TermSpec(term="cross_entropy", version=1, settings={"weight": 0.1}),
        TermSpec(term="kd", version=1, settings={"weight": 0.9, "teacher": "simplified"}),
    ]
    simplifier = SimplifierSpec(version=1, settings=changes)
    nothing = torch.zeros(1, classes)
    context = TermContext(
        classes, torch.arange(classes), 0, *[Outputs(nothing, (), (), nothing)] * 2
    )
    objective = Objective(MethodSpec(terms=terms, simplifier=simplifier), context)
    objective.simplifier = build(classes, seed, **changes)
    objective.begin_epoch(1)
    return objective


def make_batch(count: int = 5, classes: int = 6) -> Batch:
    student = draw(11, (count, classes)).requires_grad_()
    teacher = draw(12, (count, classes))
    target = teacher.argmax(1)  # right on all but two
    target[:2] = (target[:2] + 1) % classes
    outputs = [Outputs(x, (), (), x) for x in (student, teacher)]
    return Batch(*outputs, target, torch.arange(count), 1, Draws(0))


def gradients(simplifier: Simplifier) -> dict[str, float]:
    named = simplifier.named_parameters()
    return {n: 0.0 if p.grad is None else p.grad.abs().max().item() for n, p in named}


def test_joint_objective_reaches_every_weight_and_at_first_the_output_alone():
    objective = skd_objective(6)
    objective(make_batch()).total.backward()
    assert min(gradients(objective.simplifier).values()) > 1e-6
    objective = skd_objective(6, seed=None)
    objective(make_batch()).total.backward()
    reached = {name for name, size in gradients(objective.simplifier).items() if size}
    assert reached == {"output.weight"}


def test_joint_gradient_is_that_of_the_distillation_term_alone():
    objective, batch = skd_objective(6), make_batch()
    losses = objective(batch)
    assert set(losses.parts) == {"cross_entropy", "kd on simplified"}
    losses.total.backward()
    own = build(6)
    (0.9 * kd_loss(batch.student.logits.detach(), own(batch.teacher.logits), 4.0)).backward()
    for name, parameter in own.named_parameters():
        got = objective.simplifier.get_parameter(name).grad
        torch.testing.assert_close(got, parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", ["joint", "anchored"])
def test_frozen_simplifier_gets_no_gradient_and_no_place_in_the_optimiser(objective):
    made, batch = skd_objective(6, objective=objective, trainable=False), make_batch()
    made(batch).total.backward()
    assert all(p.grad is None for p in made.simplifier.parameters())
    assert batch.student.logits.grad.abs().max() > 0
    assert list(made.parameter_groups()) == []


@pytest.mark.parametrize("objective", ["joint", "anchored"])
def test_student_sees_a_constant_teacher(objective):
    made, batch = skd_objective(6, objective=objective), make_batch()
    made(batch).total.backward()
    student = batch.student.logits.detach().clone().requires_grad_()
    teacher = torch.from_numpy(reference(made.simplifier, batch.teacher.logits))
    entropy = torch.nn.functional.cross_entropy(student, batch.target)
    (0.1 * entropy + 0.9 * kd_loss(student, teacher, 4.0)).backward()
    torch.testing.assert_close(batch.student.logits.grad, student.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("anchor", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_anchored_loss_is_the_two_divergences(anchor, temperature):
    changes = {"objective": "anchored", "anchor": anchor, "temperature": temperature}
    made, batch = skd_objective(6, **changes), make_batch()
    losses = made(batch)
    simplified = reference(made.simplifier, batch.teacher.logits).tolist()
    student, teacher = batch.student.logits.tolist(), batch.teacher.logits.tolist()
    own = kl(simplified, student, temperature) + anchor * kl(teacher, simplified, temperature)
    assert losses.parts["simplifier"].item() == pytest.approx(own, rel=1e-9)
    weighted = 0.1 * losses.parts["cross_entropy"] + 0.9 * losses.parts["kd on simplified"]
    assert losses.total.item() == pytest.approx(weighted.item() + own, rel=1e-9)


def test_anchored_loss_alone_moves_the_simplifier_and_never_the_student():
    made, batch = skd_objective(6, objective="anchored"), make_batch()
    losses = made(batch)
    parameters = list(made.simplifier.parameters())
    by_own = torch.autograd.grad(losses.parts["simplifier"], parameters, retain_graph=True)
    assert not torch.autograd.grad(
        losses.parts["simplifier"], batch.student.logits, retain_graph=True, allow_unused=True
    )[0]
    losses.total.backward()
    for parameter, gradient in zip(parameters, by_own, strict=True):
        assert gradient.abs().max() > 1e-6
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_diagnostics_are_means_in_nats_and_percent(temperature):
    made, batch = skd_objective(6, temperature=temperature), make_batch(count=10)
    seen = made(batch).diagnostics
    raw, student = batch.teacher.logits.tolist(), batch.student.logits.tolist()
    simplified = reference(made.simplifier, batch.teacher.logits).tolist()

    def top1(rows: list[list[float]]) -> float:
        places = [row.index(max(row)) for row in rows]
        hits = [place == y for place, y in zip(places, batch.target.tolist(), strict=True)]
        return 100 * sum(hits) / len(hits)

    assert {name: value.item() for name, value in seen.items()} == pytest.approx(
        {
            "entropy_raw": entropy(raw, 1),
            "entropy_softened": entropy(raw, temperature),
            "entropy_simplified": entropy(simplified, temperature),
            "top1_raw": top1(raw),
            "top1_simplified": top1(simplified),
            "kl_softened_simplified": kl(raw, simplified, temperature),
            "kl_simplified_student": kl(simplified, student, temperature),
        },
        rel=1e-6,
        abs=1e-9,
    )
    assert top1(raw) == 80 != top1(simplified)
    assert not any(value.requires_grad for value in seen.values())


# The collapse control.


def epochs(*seen: dict[str, float]) -> list[EpochMetrics]:
    common = {"learning_rate": 0.1, "train_losses": {}, "train_top1": 0, "test_loss": 0}
    common |= {"test_top1": 0, "test_top5": 0, "seconds": 1, "images_per_second": 1}
    return [EpochMetrics(epoch=i + 1, diagnostics=d, **common) for i, d in enumerate(seen)]


def diagnostics(top1: float = 99.7, entropy: float = 3.61) -> dict[str, float]:
    softened = {"top1_raw": 99.7, "entropy_softened": 3.6}
    return {**softened, "top1_simplified": top1, "entropy_simplified": entropy}


HEALTHY = diagnostics()
NO_LABELS = diagnostics(top1=39.0)
NO_INFORMATION = diagnostics(entropy=4.60)
JUST_KEPT = diagnostics(top1=89.8, entropy=4.50)  # 89.73 % is nine tenths; 4.5047 nats a tenth


def test_healthy_runs_are_not_flagged():
    for last in (HEALTHY, JUST_KEPT):
        verdict = detect_collapse(epochs(HEALTHY, last), 100)
        assert (verdict.collapsed, verdict.reason, verdict.first_epoch) == (False, "", None)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (NO_LABELS, ("labels", "39.0")),
        (diagnostics(top1=89.6), ("labels", "89.6")),
        (NO_INFORMATION, ("information", "0.005")),
        (diagnostics(entropy=4.506), ("information",)),
        (diagnostics(top1=0.3, entropy=4.6), ("labels", "information")),
    ],
)
def test_lost_labels_or_information_are_flagged_with_the_reason(last, words):
    verdict = detect_collapse(epochs(HEALTHY, last), 100)
    assert verdict.collapsed
    assert verdict.first_epoch == 2
    assert all(word in verdict.reason for word in words)
    assert ("labels" in verdict.reason, "information" in verdict.reason) == (
        "labels" in words,
        "information" in words,
    )


@pytest.mark.parametrize(
    ("stretch", "first"),
    [
        ("c", 1),
        ("ccc", 1),
        ("hhc", 3),
        ("hccc", 2),
        ("chcc", 3),
        ("cchhc", 5),
        ("hcic", 2),  # whichever reason: one stretch
    ],
)
def test_first_epoch_starts_the_last_stretch(stretch, first):
    seen = {"h": HEALTHY, "c": NO_LABELS, "i": NO_INFORMATION}
    verdict = detect_collapse(epochs(*(seen[letter] for letter in stretch)), 100)
    assert verdict.collapsed
    assert verdict.first_epoch == first


def test_a_run_that_recovered_is_not_flagged():
    assert not detect_collapse(epochs(HEALTHY, NO_LABELS, NO_INFORMATION, HEALTHY), 100).collapsed


def test_the_reason_is_the_last_epochs():
    verdict = detect_collapse(epochs(NO_LABELS, NO_INFORMATION), 100)
    assert verdict.first_epoch == 1
    assert "labels" not in verdict.reason


def test_information_is_measured_against_the_number_of_classes():
    seen = {**HEALTHY, "entropy_softened": 1.0, "entropy_simplified": 2.2}
    assert detect_collapse(epochs(seen), 10).collapsed  # log 10 = 2.303: 0.10 of 1.30 nats is left
    assert not detect_collapse(epochs(seen), 100).collapsed


def test_no_simplifier_no_verdict():
    assert detect_collapse([], 100) is None
    assert detect_collapse(epochs({}, {}), 100) is None
