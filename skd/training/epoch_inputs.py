"""The inputs of an epoch: the order of its images, their views, and the position within it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skd.data.mixing import EpochMixing, draw_mixing, mix_images
from skd.data.views import Views, epoch_order
from skd.study.spec import Recipe
from skd.training.data_parallel import BatchPartition


@dataclass(frozen=True)
class InputBatch:
    """Views of some training images, with their labels.

    Attributes:
        images: the views, (B, 3, H, W), normalised.
        indices: places of the images in the training set, (B,).
        view_numbers: numbers of the views, (B,).
        target: class indices, (B,).
        strong: the second, strong views, (B, 3, H, W); ``None`` if no loss needs them.
        second_target: with mixing, class indices of the images mixed in, (B,); else ``None``.
        mix: with mixing, the share of each first image, (B,); else ``None``.
    """

    images: Tensor
    indices: Tensor
    view_numbers: Tensor
    target: Tensor
    strong: Tensor | None = None
    second_target: Tensor | None = None
    mix: Tensor | None = None


class EpochInputs:
    """The order of an epoch's images, their views, and the next step.

    Order, view numbers, mixing and cursor are tensors on the device that keep their addresses. A
    recorded step therefore reads their current values at each replay.

    Args:
        views: makes the batches.
        recipe: of the run; decides the size of batches and whether the last one is kept.
        partition: which part of a batch this process trains on.
        seed: of the run; it decides the order, the views and the mixing.
        strong_views: make the second view of each image; ``None`` if no loss needs it.

    Attributes:
        epoch: the epoch that the inputs belong to, from 1; 0 before the first `seek`.
        cursor: place of the next step in the epoch, from 0, on the device. A step adds 1 to it.
    """

    def __init__(
        self,
        views: Views,
        recipe: Recipe,
        partition: BatchPartition,
        seed: int,
        strong_views: Views | None = None,
    ) -> None:
        self.views, self.recipe, self.partition, self.seed = views, recipe, partition, seed
        self.strong_views = strong_views
        self.epoch = 0
        labels = views.labels
        self.cursor = torch.zeros((), dtype=torch.int64, device=labels.device)
        self._order, self._view_numbers = torch.zeros_like(labels), torch.zeros_like(labels)
        self._strong_numbers = None if strong_views is None else torch.zeros_like(labels)
        self._mixing = None if recipe.mixing == "none" else self._draw_mixing(1)
        self._places = torch.arange(recipe.batch_size, device=labels.device)
        self._position: tuple[int, int] | None = None  # epoch and step of the cursor, on the CPU

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch. The last one is smaller if the recipe keeps it."""
        return self.recipe.steps_per_epoch(len(self.views.labels))

    @property
    def images_per_epoch(self) -> int:
        """Training images that an epoch uses."""
        return min(len(self.views.labels), self.steps_per_epoch * self.recipe.batch_size)

    def batch_size(self, step: int) -> int:
        """Return the number of images in the batch of a step (from 0)."""
        whole = self.recipe.batch_size
        return min(whole, len(self.views.labels) - step * whole)

    def seek(self, epoch: int, step: int) -> None:
        """Go to a step (from 0) of an epoch (from 1)."""
        self.epoch = epoch
        self._order.copy_(epoch_order(self.seed, epoch, len(self.views.labels)))
        self._view_numbers.copy_(self.views.draw_epoch(self.seed, epoch))
        if self._mixing is not None:
            self._mixing.copy_(self._draw_mixing(epoch))
        self.cursor.fill_(step)
        self._schedule(self.views, self._view_numbers, step)
        if self.strong_views is not None:
            self._strong_numbers.copy_(self.strong_views.draw_epoch(self.seed, epoch))
            self._schedule(self.strong_views, self._strong_numbers, step)
        self._position = epoch, step

    def is_at(self, epoch: int, step: int) -> bool:
        """Return whether a step is the next one."""
        return self._position == (epoch, step)

    def step_done(self, step: int) -> None:
        """Note that a step of the epoch has been trained, which has moved the cursor."""
        self._position = self.epoch, step + 1

    def forget_position(self) -> None:
        """Make `is_at` false for every step, so that the next one begins with `seek`."""
        self._position = None

    def load_next(self) -> None:
        """Prepare the images of the next part, in the order of the epoch."""
        self.views.load_next_batch()
        if self.strong_views is not None:
            self.strong_views.load_next_batch()

    def close(self) -> None:
        """Stop the processes that load batches."""
        self.views.close()
        if self.strong_views is not None:
            self.strong_views.close()

    def batch(self, part: range) -> InputBatch:
        """Return the images at some places of the batch at the cursor."""
        # A trial step may read past the end of the epoch; its places start again from 0.
        places = self.cursor * len(self._places) + self._places[part.start : part.stop]
        indices = self._order[places % len(self._order)]
        view_numbers = self._view_numbers[indices]
        inputs = InputBatch(
            images=self.views.batch(indices, view_numbers),
            indices=indices,
            view_numbers=view_numbers,
            target=self.views.labels[indices],
            strong=None
            if self.strong_views is None
            else self.strong_views.batch(indices, self._strong_numbers[indices]),
        )
        return inputs if self._mixing is None else self._mixed(inputs, part, places)

    def _mixed(self, inputs: InputBatch, part: range, places: Tensor) -> InputBatch:
        """Return a part of the batch at the cursor with its images mixed."""
        partners = self._mixing.partners[places % len(self._order)] - part.start
        step = self.cursor.view(1)  # `values[cursor]` would read the cursor back
        share = self._mixing.shares.index_select(0, step)
        box = self._mixing.boxes.index_select(0, step)[0]
        return replace(
            inputs,
            images=mix_images(self.recipe.mixing, inputs.images, partners, share, box),
            second_target=inputs.target[partners],
            mix=share.to(inputs.images.dtype).expand(len(partners)),
        )

    def _draw_mixing(self, epoch: int) -> EpochMixing:
        recipe, labels = self.recipe, self.views.labels
        return draw_mixing(
            self.seed,
            epoch,
            kind=recipe.mixing,
            alpha=recipe.mixing_alpha,
            images=len(labels),
            batch=recipe.batch_size,
            group=recipe.bn_batch,
            size=self.views.size,
        ).to(labels.device)

    def _schedule(self, views: Views, numbers: Tensor, step: int) -> None:
        """Announce the parts from a step (from 0) to the end of the epoch."""
        largest = len(self.partition.own_parts(self.recipe.batch_size)[0])
        views.schedule_batches(self._remaining_parts(numbers, step), largest)

    def _remaining_parts(
        self, view_numbers: Tensor, first_step: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield indices and view numbers of this process's parts, up to the end of the epoch."""
        order, view_numbers = self._order.cpu(), view_numbers.cpu()
        for step in range(first_step, self.steps_per_epoch):
            start = step * self.recipe.batch_size
            for part in self.partition.own_parts(self.batch_size(step)):
                indices = order[start + part.start : start + part.stop]
                yield indices, view_numbers[indices]
