"""PESF-KD's adapter: its logits, losses and gradients against the formulas, and stored views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.pesf import PESF
from skd.authoring.trial import make_teacher, run_trial, same_final_state, trial_spec
from skd.losses.methods import teacher_needs
from skd.losses.term import Batch
from skd.store.teacher_view_files import stored_outputs
from skd.study.sheet import StudyError
from tests.builders.formulas import entropy, kl, nll
from tests.builders.losses import draw, make_batch, make_outputs, make_transformation, slopes
from tests.builders.objectives import chosen, objective_on, terms

WIDTH = 7  # of the teacher's pooled feature


def trained(**settings: object) -> tuple[PESF, Batch]:
    """An adapter with drawn weights, as after a training, and a batch."""
    student, teacher = (make_outputs(seed, 4, width=WIDTH) for seed in (0, 1))
    rule = make_transformation("pesf", student, teacher, width=3, **settings)
    for place, parameter in enumerate(rule.parameters()):
        parameter.data = draw(50 + place, tuple(parameter.shape))
    target = torch.tensor([3, 0, 0, 2])
    return rule, make_batch(student, teacher, target)


def adapted(weights: dict[str, np.ndarray], logits: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """t + W4·relu(W2·(W1·f + b1) + b2) + b4, image by image."""
    rows = []
    for t, f in zip(logits, pooled, strict=True):
        projected = weights["0.weight"] @ f + weights["0.bias"]
        hidden = np.maximum(weights["1.weight"] @ projected + weights["1.bias"], 0)
        rows.append(t + weights["3.weight"] @ hidden + weights["3.bias"])
    return np.array(rows)


def weights_of(rule: PESF) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in rule.adapter.state_dict().items()}


def test_logits_and_own_loss_follow_the_formula() -> None:
    rule, batch = trained(weight=0.7)
    logits = rule(batch)
    teacher = batch.teacher
    expected = adapted(
        weights_of(rule), teacher.logits.detach().numpy(), teacher.pooled.detach().numpy()
    )
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-12)
    own = 0.7 * nll(expected.tolist(), batch.target.tolist())
    assert rule.own_loss(batch, logits).item() == pytest.approx(own, rel=1e-12)
    assert rule.for_student(logits) is logits


def test_a_mixed_image_has_the_shares_of_its_classes() -> None:
    rule, batch = trained()
    second, mix = torch.tensor([0, 1, 2, 3]), draw(9, (4,)).sigmoid()
    logits = rule(batch)
    mixed = rule.own_loss(replace(batch, second_target=second, mix=mix), logits)
    expected = sum(
        share * nll([row], [a]) + (1 - share) * nll([row], [b])
        for row, share, a, b in zip(
            logits.tolist(), mix.tolist(), batch.target.tolist(), second.tolist(), strict=True
        )
    )
    assert mixed.item() == pytest.approx(expected / 4, rel=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_objective_and_its_gradients_follow_the_formula(weight: float) -> None:
    """0.1·CE(s, y) + 0.9·KL_4(s←t') + weight·CE(t', y), by the student and by the adapter."""
    rule, batch = trained(weight=weight)
    method = chosen({"like": "pesf", "transformations": {"pesf": {"weight": weight, "width": 3}}})
    objective = objective_on(method, batch)
    objective.pesf.load_state_dict(rule.state_dict())
    total = objective(batch).total
    total.backward()
    weights, labels = weights_of(rule), batch.target.tolist()
    teacher = (batch.teacher.logits.detach().numpy(), batch.teacher.pooled.detach().numpy())

    def reference(student: Tensor, changed: dict[str, np.ndarray]) -> float:
        t = adapted({**weights, **changed}, *teacher).tolist()
        s = student.tolist()
        return 0.1 * nll(s, labels) + 0.9 * 16 * kl(t, s, 4.0) + weight * nll(t, labels)

    student = batch.student.logits.detach()
    assert total.item() == pytest.approx(reference(student, {}), rel=1e-10)
    by_student = slopes(lambda x: reference(x, {}), student)
    torch.testing.assert_close(batch.student.logits.grad, by_student, rtol=1e-6, atol=1e-8)
    for name, parameter in objective.pesf.adapter.named_parameters():
        expected = slopes(lambda x, name=name: reference(student, {name: x}), weights[name])
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-6, atol=1e-8)


def test_at_the_start_the_logits_differ_from_the_raw_ones_unless_the_output_is_zero() -> None:
    student, teacher = (make_outputs(seed, 4, width=WIDTH) for seed in (0, 1))
    batch = make_batch(student, teacher)
    zero = make_transformation("pesf", student, teacher, output_init="zero")
    assert torch.equal(zero(batch), teacher.logits)
    default = make_transformation("pesf", student, teacher)
    offset = (default(batch) - teacher.logits).abs().max().item()
    assert 0 < offset < 2


def test_diagnostics_are_means_in_nats_and_percent() -> None:
    rule, batch = trained()
    logits = rule(batch)
    raw, t, s = (x.tolist() for x in (batch.teacher.logits, logits, batch.student.logits))
    labels = batch.target.tolist()

    def top1(rows: list[list[float]]) -> float:
        return 25.0 * sum(row.index(max(row)) == y for row, y in zip(rows, labels, strict=True))

    offsets = [abs(a - b) for x, y in zip(t, raw, strict=True) for a, b in zip(x, y, strict=True)]
    expected = {
        "entropy_raw": entropy(raw),
        "entropy_adapted": entropy(t),
        "top1_raw": top1(raw),
        "top1_adapted": top1(t),
        "kl_raw_adapted": kl(raw, t),
        "kl_adapted_student": kl(t, s),
        "offset": sum(offsets) / len(offsets),
    }
    got = {name: value.item() for name, value in rule.diagnostics(batch, logits).items()}
    assert got == pytest.approx(expected, rel=1e-9)


def test_methods_are_kd_and_dkd_on_its_logits() -> None:
    assert terms(chosen("pesf")) == [("cross_entropy", 0.1, "raw"), ("kd", 0.9, "pesf")]
    assert chosen("pesf").terms[1].settings["temperature"] == 4
    for name in ("pesf+dkd", "dkd+pesf"):
        assert terms(chosen(name)) == [("cross_entropy", 1.0, "raw"), ("dkd", 1.0, "pesf")]
    for name, part in (("crd", ("crd", 0.8, "raw")), ("reviewkd", ("reviewkd", 1.0, "raw"))):
        expected = [("cross_entropy", 1.0, "raw"), ("kd", 0.9, "pesf"), part]
        assert terms(chosen(f"pesf+{name}")) == expected
    both = [("kd", 0.9, "simplified"), ("kd", 0.9, "pesf")]
    assert terms(chosen("skd+pesf")) == [("cross_entropy", 0.1, "raw"), *both]
    # skd+dkd keeps its definition in longer sums, as it does beside other methods
    longer = [("dkd", 1.0, "simplified"), ("kd", 0.9, "pesf")]
    assert terms(chosen("skd+pesf+dkd")) == [("cross_entropy", 1.0, "raw"), *longer]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0}, ("pesf", "width", "0")),
        ({"weight": -1}, ("pesf", "weight", "-1")),
        ({"output_init": "ones"}, ("pesf", "output_init", "'default'", "'zero'")),
        ({"learning_rate_multiplier": 0}, ("pesf", "learning_rate_multiplier")),
        ({"bottleneck": 32}, ("unknown key 'bottleneck'", "width")),
    ],
)
def test_bad_settings_are_refused_with_the_allowed_ones(
    settings: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(StudyError) as error:
        chosen({"like": "pesf", "transformations": {"pesf": settings}})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("method", ["pesf", "pesf+dkd", "pesf+crd"])
def test_gradients_reach_exactly_the_student_and_the_adapter(method: str) -> None:
    spec = trial_spec(chosen(method), "wrn_16_1", "resnet8")
    teacher = make_teacher(spec)
    trial = run_trial(spec, teacher)
    adapter = {name for name in trial.gradient_reached if ".pesf." in name}
    assert len(adapter) == 6
    assert [name for name, reached in trial.gradient_reached.items() if not reached] == []
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_resumed_run_has_the_same_bits() -> None:
    """With the student's learning rate, so that the adapter moves."""
    changes = {"transformations": {"pesf": {"learning_rate_multiplier": 1.0}}}
    spec = trial_spec(chosen({"like": "skd+pesf", **changes}), "wrn_16_1", "resnet8")
    whole = run_trial(spec, make_teacher(spec), steps=3)
    resumed = run_trial(spec, make_teacher(spec), whole.state_after_first_step, steps=2)
    assert same_final_state(whole, resumed)
    fresh = run_trial(spec, make_teacher(spec), steps=2)
    assert not same_final_state(whole, fresh)


def test_stored_logits_and_pooled_features_suffice() -> None:
    assert stored_outputs(teacher_needs(chosen("skd+pesf"))) == ("logits", "pooled")
