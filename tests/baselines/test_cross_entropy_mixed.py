"""Cross-entropy of mixed images: the mean of both classes' losses, weighted by their shares."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.builders.formulas import log_softmax
from tests.builders.losses import draw, make_batch, make_outputs, make_term, slopes


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_have_both_classes_losses_by_their_shares(smoothing: float) -> None:
    student = make_outputs(0, 4)
    term = make_term("cross_entropy", student, student, label_smoothing=smoothing)
    first, second = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 1, 0, 2])
    mix = torch.tensor([0.25, 0.9, 0.0, 1.0], dtype=torch.float64)

    def reference(logits: torch.Tensor) -> float:
        total = 0.0
        for row, a, b, share in zip(logits.tolist(), first, second, mix.tolist(), strict=True):
            log_q = log_softmax(row, 1.0)
            mixed = share * log_q[a] + (1 - share) * log_q[b]
            total -= ((1 - smoothing) * mixed + smoothing * sum(log_q) / len(log_q)) / 4
        return total

    batch = replace(make_batch(student, student, first), second_target=second, mix=mix)
    loss = term(batch)
    loss.backward()
    logits = student.logits.detach()
    assert loss.item() == pytest.approx(reference(logits), rel=1e-12)
    torch.testing.assert_close(student.logits.grad, slopes(reference, logits), rtol=1e-6, atol=1e-9)
    # Every soft label's cross-entropy is torch's.
    soft = torch.zeros(4, 5, dtype=torch.float64)
    soft.scatter_add_(1, first[:, None], mix[:, None])
    soft.scatter_add_(1, second[:, None], 1 - mix[:, None])
    expected = torch.nn.functional.cross_entropy(logits, soft, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_equal_classes_are_not_mixed() -> None:
    student = make_outputs(1, 6)
    term, plain = make_term("cross_entropy", student, student), make_batch(student, student)
    mix = draw(0, (6,)).sigmoid()
    mixed = replace(plain, second_target=plain.target, mix=mix)
    assert term(mixed).item() == pytest.approx(term(plain).item(), rel=1e-12)
