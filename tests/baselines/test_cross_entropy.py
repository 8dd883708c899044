"""Cross-entropy with label smoothing against its formula, written out in loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from baselines.cross_entropy import CrossEntropy
from skd.losses.term import Batch
from skd.models.network import Outputs
from skd.randomness import Draws
from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, slopes

TARGET = torch.tensor([0, 2, 2, 4])


def reference(logits: Any, smoothing: float) -> float:
    """Return the mean of -sum_c q_c log p_c with q = (1 - a) onehot + a/C."""
    total = 0.0
    for row, label in zip(np.asarray(logits).tolist(), TARGET.tolist(), strict=True):
        log_p, classes = log_softmax(row, 1.0), len(row)
        for c, value in enumerate(log_p):
            total -= ((1 - smoothing) * (c == label) + smoothing / classes) * value
    return total / len(TARGET)


def loss_of(logits: torch.Tensor, **settings: Any) -> torch.Tensor:
    term = CrossEntropy(CrossEntropy.Settings(**settings), None)
    outputs = Outputs(logits, (), (), logits)
    return term(Batch(outputs, None, TARGET, torch.arange(4), 1, Draws(0)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
def test_value_and_gradient_follow_the_formula(smoothing: float) -> None:
    logits = draw(0, (4, 5), 3.0).requires_grad_()
    loss = loss_of(logits, label_smoothing=smoothing)
    loss.backward()
    values = logits.detach().numpy()
    assert loss.item() == pytest.approx(reference(values, smoothing), rel=1e-12)
    expected = slopes(lambda x: reference(x, smoothing), values)
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-6, atol=1e-9)


def test_a_confident_student_has_a_loss_only_with_smoothing() -> None:
    logits = 50 * torch.nn.functional.one_hot(TARGET, 5).double()
    assert loss_of(logits).item() == pytest.approx(0, abs=1e-12)
    assert loss_of(logits, label_smoothing=0.1).item() == pytest.approx(0.1 * 4 / 5 * 50)
    assert math.isclose(CrossEntropy.Settings().label_smoothing, 0)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(smoothing: float) -> None:
    with pytest.raises(ValidationError, match="must be at least 0 and less than 1"):
        CrossEntropy.Settings(label_smoothing=smoothing)
