"""What the loop asks of a teacher: its outputs on a batch of views."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from skd.models.outputs import Outputs


class Teaching(Protocol):
    """A frozen teacher, wherever its outputs come from."""

    def outputs(self, images: Tensor, indices: Tensor, numbers: Tensor) -> Outputs:
        """Return the teacher's outputs on a batch of views; no gradient flows.

        Args:
            images: the views, (B, 3, H, W).
            indices: the images' places in the training set, (B,).
            numbers: the views' numbers, (B,).
        """


class LiveTeacher:
    """Its network's forward pass."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @torch.no_grad()
    def outputs(self, images: Tensor, indices: Tensor, numbers: Tensor) -> Outputs:
        """Return everything that the network shows."""
        return self.network.forward_features(images)


class TeacherViews:
    """A look-up among the outputs for all views, (N, V, width) each, in the images' order."""

    def __init__(self, logits: Tensor | None, pooled: Tensor | None) -> None:
        self._logits, self._pooled = logits, pooled

    def outputs(self, images: Tensor, indices: Tensor, numbers: Tensor) -> Outputs:
        """Return logits and pooled features as float32, empty ones where they are not stored."""
        logits, pooled = (
            images.new_empty(len(indices), 0) if stored is None else stored[indices, numbers]
            for stored in (self._logits, self._pooled)
        )
        return Outputs(logits.float(), stages=(), preactivations=(), pooled=pooled.float())
