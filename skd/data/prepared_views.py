"""Views that are prepared before the step that reads them.

The step, which may be a recorded one, reads memory that keeps its address.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from skd.data.views import Views

ScheduledBatch = tuple[Tensor, Tensor]  # indices and view numbers, (B,) int64 on the CPU
# The random streams that choose a run's views, and its second views.
TRAINING_VIEWS, STRONG_VIEWS = "views", "strong views"


class PreparedViews(Views):
    """Views of one training; an image has an unlimited number of them.

    Args:
        labels: of the training images, (N,) int64, on the device.
        size: height and width of the views, in pixels.
    """

    views_per_image = 0  # unlimited

    def __init__(self, labels: Tensor, size: int) -> None:
        self.labels, self.size, self.device = labels, size, labels.device
        self._scheduled: list[ScheduledBatch] = []
        self._prepared: Iterator[Tensor] = iter(())
        self._position = 0  # number of scheduled batches that were loaded
        self._loaded = 0  # number of images in the loaded batch
        self._pixels = torch.empty(0, size, size, 3, dtype=torch.uint8, device=self.device)

    @abstractmethod
    def prepare(self, batches: list[ScheduledBatch]) -> Iterator[Tensor]:
        """Start to prepare batches, and return an iterator of their pixels, (B, H, W, 3) uint8."""

    @abstractmethod
    def make(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return the pixels of one batch now, (B, H, W, 3) uint8, on the device."""

    def schedule_batches(self, batches: Iterable[ScheduledBatch], largest: int = 0) -> None:
        """Announce the coming batches, and start to prepare them: see `Views.schedule_batches`."""
        self._scheduled = list(batches)
        largest = max(largest, *(len(indices) for indices, _ in self._scheduled), 0)
        # A recorded step reads this memory: it moves only if it is too small.
        if largest > len(self._pixels):
            self._pixels = self._pixels.new_empty(largest, self.size, self.size, 3)
        self._position = self._loaded = 0
        self._prepared = self.prepare(self._scheduled)

    def load_next_batch(self) -> None:
        """Copy the next batch to its place, after the steps that still read the last batch.

        Raises:
            DataError: a photo cannot be read (names it), or a loader process has died.
            ValueError: there is no next batch.
        """
        batch = next(self._prepared, None)
        if batch is None:
            raise ValueError("there is no next batch: announce batches by schedule_batches()")
        self._loaded = len(batch)
        self._position += 1
        # A copy from pinned memory is queued behind the device's earlier work.
        self._pixels[: self._loaded].copy_(batch, non_blocking=True)

    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images: see `Views.batch`.

        They are the loaded batch's. If no batch has been loaded since `schedule_batches`, they are
        made now.

        Raises:
            DataError: a photo cannot be read; names it.
            ValueError: the images are not those of the loaded batch. Checked only on a CPU, where
                the check is free.
        """
        if not self._loaded:
            return self._normalise_rows(self.make(indices, numbers))
        if self.device.type == "cpu":
            self._check_loaded(indices, numbers)
        return self._normalise_rows(self._pixels[: len(indices)])

    def _check_loaded(self, indices: Tensor, numbers: Tensor) -> None:
        loaded = self._scheduled[self._position - 1]
        for given, expected in zip((indices, numbers), loaded, strict=True):
            if not torch.equal(given, expected[: len(given)]):
                raise ValueError("the images are not those that load_next_batch() loaded")

    def _normalise_rows(self, pixels: Tensor) -> Tensor:
        return self.normalise(pixels.permute(0, 3, 1, 2))
