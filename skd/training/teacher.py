"""Frozen teachers: their outputs on a batch of views, computed or read from files."""

from __future__ import annotations

import mmap
from typing import Protocol

import torch
from torch import Tensor, nn

from skd.models.network import Outputs
from skd.training.compiling import compile_network
from skd.training.epoch_inputs import InputBatch

RELEASE_EVERY = 64  # look-ups; each one maps a few MB


class FrozenTeacher(Protocol):
    """A frozen teacher. Its outputs are computed in each step, or were stored before.

    Attributes:
        network: frozen, in evaluation mode; ``None`` if only stored outputs are available.
    """

    network: nn.Module | None

    def outputs(self, images: Tensor, indices: Tensor, view_numbers: Tensor) -> Outputs:
        """Return the teacher's outputs on a batch of views, without a gradient.

        Args:
            images: the views, (B, 3, H, W).
            indices: the images' places in the training set, (B,).
            view_numbers: the views' numbers, (B,).
        """


def has_finite_outputs(teacher: FrozenTeacher, inputs: InputBatch) -> bool:
    """Return whether a teacher's logits and pooled features on some views are all finite."""
    outputs = teacher.outputs(inputs.images, inputs.indices, inputs.view_numbers)
    return all(bool(values.isfinite().all()) for values in (outputs.logits, outputs.pooled))


class LiveTeacher:
    """A teacher whose outputs are computed by a forward pass of its network.

    Args:
        network: frozen, in evaluation mode.
        compiled_for: batch size for which the forward pass is compiled; ``None``: it is never
            compiled.
    """

    def __init__(self, network: nn.Module, compiled_for: int | None = None) -> None:
        self.network = network
        self._compiled_for = compiled_for
        self._compiled = compile_network(network) if compiled_for is not None else None

    @torch.no_grad()
    def outputs(self, images: Tensor, indices: Tensor, view_numbers: Tensor) -> Outputs:
        """Return all outputs of the network."""
        if self._compiled is not None and len(images) == self._compiled_for:
            return self._compiled(images)
        return self.network.forward_features(images)


class StoredOutput:
    """One output of a teacher for all views of all images, (N, V, width).

    On a CPU it is mapped from a file. Pages that were read are released from time to time; after an
    epoch the whole file would otherwise count as memory of this process.
    """

    def __init__(self, values: Tensor, mapped: mmap.mmap | None = None) -> None:
        self._values, self._mapped = values, mapped
        self._looked_up = 0

    def rows(self, indices: Tensor, view_numbers: Tensor) -> Tensor:
        """Return the output on some views, (B, width) float32."""
        self._looked_up += 1
        if self._mapped is not None and self._looked_up % RELEASE_EVERY == 0:
            self._mapped.madvise(mmap.MADV_DONTNEED)
        return self._values[indices, view_numbers].float()


class StoredTeacher:
    """A teacher whose outputs were computed before and are looked up.

    Args:
        network: the teacher's network, for losses that use its modules; it is not run.
        outputs: logits and pooled, as far as they are stored.
    """

    def __init__(self, network: nn.Module | None = None, **outputs: StoredOutput) -> None:
        self.network = network
        self._outputs = outputs

    def outputs(self, images: Tensor, indices: Tensor, view_numbers: Tensor) -> Outputs:
        """Return logits and pooled features as float32; an output that is not stored is empty."""
        empty = images.new_empty(len(indices), 0)
        rows = {name: stored.rows(indices, view_numbers) for name, stored in self._outputs.items()}
        return Outputs(
            logits=rows.get("logits", empty),
            stages=(),
            preactivations=(),
            pooled=rows.get("pooled", empty),
        )
