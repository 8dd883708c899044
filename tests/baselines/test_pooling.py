"""Deterministic pooling against PyTorch's adaptive average pooling."""

import pytest
import torch
import torch.nn.functional as F

from baselines._pooling import pool_to
from tests.builders.losses import draw


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (3, 5), (7, 8), (8, 7)])
def test_values_and_gradients_are_those_of_adaptive_pooling(size: tuple[int, int]) -> None:
    ours, theirs = (draw(0, (2, 3, 7, 8)).requires_grad_() for _ in range(2))
    weights = draw(1, (2, 3, *size))
    (pool_to(ours, size) * weights).sum().backward()
    (F.adaptive_avg_pool2d(theirs, size) * weights).sum().backward()
    torch.testing.assert_close(pool_to(ours, size), F.adaptive_avg_pool2d(theirs, size))
    torch.testing.assert_close(ours.grad, theirs.grad)
