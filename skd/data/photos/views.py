"""Views of photos, decoded ahead of the training.

Pixels go to the device as uint8, a quarter of the size of float32, and are normalised there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from skd.data.images import CHANNELS, Images
from skd.data.photos.loader import BatchStream, PhotoLoader
from skd.data.photos.random_resized_crop import draw_photo_view_numbers
from skd.data.views import TestImages, Views, normalise_pixels

# Images per forward pass; a loader process decodes one such batch at a time.
TEST_BATCH = {"cpu": 50, "cuda": 128}


class PhotoViews(Views):
    """Views of photos that are decoded from files, for one training.

    Args:
        images: the data set; its training images are files.
        device: the training's device.
        workers: number of processes that decode; 0 decodes in this process.
    """

    views_per_image = 0  # unlimited

    def __init__(self, images: Images, device: torch.device, workers: int = 0) -> None:
        self._images, self._device, self._workers = images, device, workers
        self.size = images.train_images.size
        self.labels = images.train_labels.to(device)
        # Repeated for a row of pixels, channels last: a third of the time of (3,) on a CPU.
        self._mean = torch.tensor(images.mean, device=device).repeat(self.size)
        self._std = torch.tensor(images.std, device=device).repeat(self.size)
        self._loader = PhotoLoader(images.train_images, device, workers)
        self._scheduled: list[tuple[Tensor, Tensor]] = []
        self._stream: BatchStream | None = None
        self._pixels = torch.empty(0, self.size, self.size, 3, dtype=torch.uint8, device=device)
        self._loaded = 0  # number of images in the loaded batch

    def for_training(self) -> PhotoViews:
        """Return the same views with separate loader processes."""
        return PhotoViews(self._images, self._device, self._workers)

    def draw_epoch(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""
        return draw_photo_view_numbers(seed, epoch, len(self.labels)).to(self._device)

    def schedule_batches(self, batches: Iterable[tuple[Tensor, Tensor]], largest: int = 0) -> None:
        """Announce the coming batches: the loader processes start to decode them."""
        self._scheduled = list(batches)
        largest = max(largest, *(len(indices) for indices, _ in self._scheduled), 0)
        # A recorded step reads this memory: it moves only if it is too small.
        if largest > len(self._pixels):
            self._pixels = self._pixels.new_empty(largest, self.size, self.size, 3)
        self._loaded = 0
        self._stream = self._loader.stream([(i.numpy(), n.numpy()) for i, n in self._scheduled])

    def load_next_batch(self) -> None:
        """Copy the next batch to the device, after the steps that still read the last batch.

        Raises:
            DataError: a photo cannot be read (names it), or a loader process has died.
            ValueError: there is no next batch.
        """
        batch = None if self._stream is None else next(self._stream, None)
        if batch is None:
            raise ValueError("there is no next batch: announce batches by schedule_batches()")
        self._loaded = len(batch)
        # The copy from pinned memory is queued behind the device's earlier work.
        self._pixels[: self._loaded].copy_(batch, non_blocking=True)

    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images: see `Views.batch`.

        They are the loaded batch's. If no batch has been loaded since `schedule_batches`, they are
        decoded now.

        Raises:
            DataError: a photo cannot be read; names it.
            ValueError: the images are not those of the loaded batch. Checked only on a CPU, where
                the check is free.
        """
        if not self._loaded:
            pixels = self._loader.decode((indices.cpu().numpy(), numbers.cpu().numpy()))
            return self._normalise_rows(pixels.to(self._device))
        if self._device.type == "cpu":
            self._check_loaded(indices, numbers)
        return self._normalise_rows(self._pixels[: len(indices)])

    def _check_loaded(self, indices: Tensor, numbers: Tensor) -> None:
        loaded = self._scheduled[self._stream.position - 1]
        for given, expected in zip((indices, numbers), loaded, strict=True):
            if not torch.equal(given, expected[: len(given)]):
                raise ValueError("the images are not those that load_next_batch() loaded")

    def _normalise_rows(self, pixels: Tensor) -> Tensor:
        return self.normalise(pixels.permute(0, 3, 1, 2))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels, (B, 3, H, W): see `Views.normalise`."""
        rows = normalise_pixels(pixels.permute(0, 2, 3, 1).flatten(2), self._mean, self._std)
        return rows.unflatten(2, (self.size, CHANNELS)).permute(0, 3, 1, 2)

    def close(self) -> None:
        """Stop the loader processes. No batch can be scheduled afterwards."""
        self._loader.close()


class TestPhotos(TestImages):
    """Test photos in files, resized and cropped in the usual way. Threads may share an instance."""

    on_device = False

    def __init__(self, images: Images, device: torch.device, workers: int = 0) -> None:
        self._files, self._device, self._workers = images.test_images, device, workers
        self._thread = threading.local()  # has each thread's loader

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield images `start` to `stop` - 1 in batches, (B, 3, S, S) uint8 on the device.

        Raises:
            DataError: a photo cannot be read (names it), or a loader process has died.
        """
        parts = torch.arange(start, stop).split(TEST_BATCH[self._device.type])
        for batch in self._loader().stream([(part.numpy(), None) for part in parts if len(part)]):
            yield batch.to(self._device, non_blocking=True).permute(0, 3, 1, 2)

    def _loader(self) -> PhotoLoader:
        if not hasattr(self._thread, "loader"):
            self._thread.loader = PhotoLoader(self._files, self._device, self._workers)
        return self._thread.loader

    def close(self) -> None:
        """Stop the loader processes of this thread."""
        if hasattr(self._thread, "loader"):
            self._thread.loader.close()
            del self._thread.loader
