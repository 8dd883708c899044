"""What a step trains on: an epoch's order of images and their views, kept on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from skd.data.views import Views, epoch_order
from skd.study.spec import Recipe
from skd.training.data_parallel import BatchPartition


@dataclass(frozen=True)
class InputBatch:
    """Views of some images.

    Attributes:
        images: (B, 3, H, W), normalised.
        indices: the images' places in the training set, (B,).
        numbers: the views' numbers, (B,).
        target: class indices, (B,).
    """

    images: Tensor
    indices: Tensor
    numbers: Tensor
    target: Tensor


class EpochInputs:
    """The order of an epoch's images, their views, and the step that is next.

    All of it lies in tensors that keep their place, so that a recorded step reads them anew.

    Attributes:
        cursor: the next step's place in the epoch, from 0; a step adds 1 to it.
    """

    def __init__(self, views: Views, recipe: Recipe, division: BatchPartition) -> None:
        self.views, self.recipe, self.division = views, recipe, division
        labels = views.labels
        self.cursor = torch.zeros((), dtype=torch.int64, device=labels.device)
        self._order, self._numbers = torch.zeros_like(labels), torch.zeros_like(labels)
        self._places = torch.arange(recipe.batch_size, device=labels.device)

    @property
    def steps(self) -> int:
        """Batches in an epoch; the last one may be smaller, where it is kept."""
        return self.recipe.steps_per_epoch(len(self.views.labels))

    def size(self, step: int) -> int:
        """Return the images in the batch of a step (from 0)."""
        whole = self.recipe.batch_size
        return min(whole, len(self.views.labels) - step * whole)

    def begin(self, seed: int, epoch: int, step: int) -> None:
        """Set everything to a step (from 0) of an epoch (from 1)."""
        self._order.copy_(epoch_order(seed, epoch, len(self.views.labels)))
        self._numbers.copy_(self.views.draw_epoch(seed, epoch))
        self.cursor.fill_(step)
        largest = len(self.division.parts(self.recipe.batch_size)[0])
        self.views.schedule_batches(self._to_come(step), largest)

    def _to_come(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's images of the rest of the epoch, and their views, part by part."""
        order, numbers = self._order.cpu(), self._numbers.cpu()
        for step in range(first, self.steps):
            start = step * self.recipe.batch_size
            for part in self.division.parts(self.size(step)):
                indices = order[start + part.start : start + part.stop]
                yield indices, numbers[indices]

    def of(self, part: range) -> InputBatch:
        """Return a part of the batch that the cursor is at."""
        # A step that is tried out may go past the end of the epoch; it starts over there.
        places = self.cursor * len(self._places) + self._places[part.start : part.stop]
        indices = self._order[places % len(self._order)]
        numbers = self._numbers[indices]
        images = self.views.batch(indices, numbers)
        return InputBatch(images, indices, numbers, self.views.labels[indices])
