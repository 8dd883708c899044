"""What the loop asks of a teacher: its outputs on a batch of views."""

from __future__ import annotations

import mmap
from typing import Protocol

import torch
from torch import Tensor, nn

from skd.models.network import Outputs
from skd.training.compiling import compile_network
from skd.training.epoch_inputs import InputBatch

RELEASE_EVERY = 64  # look-ups, each of which maps some MB at most


class FrozenTeacher(Protocol):
    """A frozen teacher, wherever its outputs come from."""

    def outputs(self, images: Tensor, indices: Tensor, numbers: Tensor) -> Outputs:
        """Return the teacher's outputs on a batch of views; no gradient flows.

        Args:
            images: the views, (B, 3, H, W).
            indices: the images' places in the training set, (B,).
            numbers: the views' numbers, (B,).
        """


def has_finite_outputs(teacher: FrozenTeacher, inputs: InputBatch) -> bool:
    """Whether a teacher's logits and pooled features on some views are all finite."""
    found = teacher.outputs(inputs.images, inputs.indices, inputs.numbers)
    return all(bool(values.isfinite().all()) for values in (found.logits, found.pooled))


class LiveTeacher:
    """Its network's forward pass.

    Args:
        network: frozen, in evaluation mode.
        compiled_for: the number of images in a batch for which the pass is compiled; none: it
            never is.
    """

    def __init__(self, network: nn.Module, compiled_for: int | None = None) -> None:
        self.network = network
        self._compiled_for = compiled_for
        self._compiled = compile_network(network) if compiled_for is not None else None

    @torch.no_grad()
    def outputs(self, images: Tensor, indices: Tensor, numbers: Tensor) -> Outputs:
        """Return everything that the network shows."""
        if self._compiled is not None and len(images) == self._compiled_for:
            return self._compiled(images)
        return self.network.forward_features(images)


class StoredOutput:
    """One output for all views, (N, V, width), in the images' order; on a CPU mapped from a file.

    What was looked up stays in the system's cache, but not for long in this process's share of it:
    after an epoch that would be the whole file.
    """

    def __init__(self, values: Tensor, mapped: mmap.mmap | None = None) -> None:
        self._values, self._mapped = values, mapped
        self._looked_up = 0

    def rows(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return some images' views, (B, width) float32."""
        self._looked_up += 1
        if self._mapped is not None and self._looked_up % RELEASE_EVERY == 0:
            self._mapped.madvise(mmap.MADV_DONTNEED)
        return self._values[indices, numbers].float()


class StoredTeacher:
    """A look-up among stored outputs."""

    def __init__(self, **outputs: StoredOutput) -> None:
        self._outputs = outputs

    def outputs(self, images: Tensor, indices: Tensor, numbers: Tensor) -> Outputs:
        """Return logits and pooled features as float32, empty ones where they are not stored."""
        empty = images.new_empty(len(indices), 0)
        found = {name: stored.rows(indices, numbers) for name, stored in self._outputs.items()}
        return Outputs(
            logits=found.get("logits", empty),
            stages=(),
            preactivations=(),
            pooled=found.get("pooled", empty),
        )
