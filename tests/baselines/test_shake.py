"""SHAKE's shadow head: its losses and gradients against equation 5, and what is a constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.shake import SHAKE
from skd.authoring.trial import make_teacher, run_trial, same_final_state, trial_spec
from skd.losses.methods import teacher_needs
from skd.losses.term import Batch
from skd.study.sheet import StudyError
from tests.builders.formulas import entropy, kl, nll
from tests.builders.losses import draw, make_batch, make_outputs, make_transformation, slopes
from tests.builders.objectives import chosen, objective_on, terms

WIDTH = 7  # of the student's pooled feature


def trained(**settings: object) -> tuple[SHAKE, Batch]:
    """A shadow with drawn weights, as after a training, and a batch."""
    student, teacher = make_outputs(0, 4, width=WIDTH), make_outputs(1, 4, width=9)
    rule = make_transformation("shake", student, teacher, **settings)
    for place, parameter in enumerate(rule.parameters()):
        parameter.data = draw(50 + place, tuple(parameter.shape))
    return rule, make_batch(student, teacher, torch.tensor([3, 0, 0, 2]))


def weights_of(rule: SHAKE) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in rule.head.state_dict().items()}


def shadow(weights: dict[str, np.ndarray], pooled: np.ndarray) -> list[list[float]]:
    """W·f + b, or W2·relu(W·f + b) + b2, image by image."""
    rows = []
    for row in pooled:
        out = weights["0.weight"] @ row + weights["0.bias"]
        if "2.weight" in weights:
            out = weights["2.weight"] @ np.maximum(out, 0) + weights["2.bias"]
        rows.append(out.tolist())
    return rows


@pytest.mark.parametrize("width", [None, 3])
def test_logits_and_own_loss_follow_the_formula(width: int | None) -> None:
    rule, batch = trained(width=width, student_weight=0.5, temperature=2.0)
    logits = rule(batch)
    expected = shadow(weights_of(rule), batch.student.pooled.detach().numpy())
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-12)
    t, s = batch.teacher.logits.tolist(), batch.student.logits.tolist()
    own = 4 * (kl(t, expected, 2.0) + 0.5 * kl(s, expected, 2.0))
    assert rule.own_loss(batch, logits).item() == pytest.approx(own, rel=1e-12)


@pytest.mark.parametrize("trains_backbone", [True, False])
def test_the_objective_and_its_gradients_follow_the_formula(trains_backbone: bool) -> None:
    """CE(s, y) + KL_4(s←t') + KL_4(t'←t) + λ·KL_4(t'←s), with constant targets."""
    rule, batch = trained(student_weight=0.7)
    settings = {"trains_backbone": trains_backbone, "student_weight": 0.7}
    objective = objective_on(
        chosen({"like": "shake", "transformations": {"shake": settings}}), batch
    )
    objective.shake.load_state_dict(rule.state_dict())
    total = objective(batch).total
    total.backward()
    weights, labels = weights_of(rule), batch.target.tolist()
    s, t = batch.student.logits.detach(), batch.teacher.logits.tolist()
    pooled = batch.student.pooled.detach().numpy()
    constant = shadow(weights, pooled)

    def student_loss(logits: torch.Tensor) -> float:
        return nll(logits.tolist(), labels) + 16 * kl(constant, logits.tolist(), 4.0)

    def shadow_loss(changed: dict[str, np.ndarray], feature: np.ndarray = pooled) -> float:
        own = shadow({**weights, **changed}, feature)
        return 16 * (kl(t, own, 4.0) + 0.7 * kl(s.tolist(), own, 4.0))

    assert total.item() == pytest.approx(student_loss(s) + shadow_loss({}), rel=1e-10)
    torch.testing.assert_close(
        batch.student.logits.grad, slopes(student_loss, s), rtol=1e-6, atol=1e-8
    )
    for name, parameter in objective.shake.head.named_parameters():
        expected = slopes(lambda x, name=name: shadow_loss({name: x}), weights[name])
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-6, atol=1e-8)
    if trains_backbone:
        expected = slopes(lambda x: shadow_loss({}, x), pooled)
        np.testing.assert_allclose(batch.student.pooled.grad, expected, rtol=1e-6, atol=1e-8)
    else:
        assert batch.student.pooled.grad is None
    assert batch.teacher.logits.grad is not None  # frozen in a run, as its leaves are not here


def test_diagnostics_are_means_in_nats_and_percent() -> None:
    rule, batch = trained()
    logits = rule(batch)
    raw, own, s = (x.tolist() for x in (batch.teacher.logits, logits, batch.student.logits))
    labels = batch.target.tolist()

    def top1(rows: list[list[float]]) -> float:
        return 25.0 * sum(row.index(max(row)) == y for row, y in zip(rows, labels, strict=True))

    expected = {
        "entropy_shadow": entropy(own),
        "top1_raw": top1(raw),
        "top1_shadow": top1(own),
        "kl_raw_shadow": kl(raw, own, 4.0),
        "kl_student_shadow": kl(s, own, 4.0),
    }
    got = {name: value.item() for name, value in rule.diagnostics(batch, logits).items()}
    assert got == pytest.approx(expected, rel=1e-9)


def test_the_method_has_the_papers_weights() -> None:
    assert terms(chosen("shake")) == [("cross_entropy", 1.0, "raw"), ("kd", 1.0, "shake")]
    assert chosen("shake").terms[1].settings["temperature"] == 4
    settings = chosen("shake").transformations[0].settings
    assert (settings["temperature"], settings["student_weight"]) == (4, 1)
    assert teacher_needs(chosen("shake")) == {"teacher_logits"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0}, ("shake", "width", "0")),
        ({"temperature": 0}, ("shake", "temperature", "0")),
        ({"student_weight": -1}, ("shake", "student_weight", "-1")),
        ({"lambda": 1}, ("unknown key 'lambda'", "student_weight")),
    ],
)
def test_bad_settings_are_refused_with_the_allowed_ones(
    settings: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(StudyError) as error:
        chosen({"like": "shake", "transformations": {"shake": settings}})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("method", ["shake", "shake+crd", "shake+pesf"])
def test_gradients_reach_exactly_the_student_and_the_modules_that_train(method: str) -> None:
    spec = trial_spec(chosen(method), "wrn_16_1", "resnet8")
    teacher = make_teacher(spec)
    trial = run_trial(spec, teacher)
    assert sum(".shake." in name for name in trial.gradient_reached) == 2
    assert [name for name, reached in trial.gradient_reached.items() if not reached] == []
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_resumed_run_has_the_same_bits() -> None:
    spec = trial_spec(chosen("shake"), "wrn_16_1", "resnet8")
    whole = run_trial(spec, make_teacher(spec), steps=3)
    resumed = run_trial(spec, make_teacher(spec), whole.state_after_first_step, steps=2)
    assert same_final_state(whole, resumed)
    assert not same_final_state(whole, run_trial(spec, make_teacher(spec), steps=2))
