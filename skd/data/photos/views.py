"""Views of photos, decoded ahead of the training: the face of `skd.data.views.Views`.

Pixels go to the device as uint8, a quarter of their size as float32, and are normalised there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from skd.data.images import CHANNELS, Images
from skd.data.photos.loader import BatchStream, PhotoLoader
from skd.data.photos.random_resized_crop import draw_photo_view_numbers
from skd.data.views import normalise_pixels

# Images a forward pass, and of one loader process at a time.
TEST_BATCH = {"cpu": 50, "cuda": 128}


class PhotoViews:
    """Makes normalised batches from files of photos, for one training.

    Args:
        images: the data set; its training images are files.
        device: of the training.
        workers: processes that decode; 0: this one does.
    """

    count = 0  # endless

    def __init__(self, images: Images, device: torch.device, workers: int = 0) -> None:
        self._images, self._device, self._workers = images, device, workers
        self.size = images.train_images.size
        self.labels = images.train_labels.to(device)
        # Of a row of pixels, channels last: by channel alone a CPU would take three times as long.
        self._mean = torch.tensor(images.mean, device=device).repeat(self.size)
        self._std = torch.tensor(images.std, device=device).repeat(self.size)
        self._loader = PhotoLoader(images.train_images, device, workers)
        self._coming: list[tuple[Tensor, Tensor]] = []
        self._run: BatchStream | None = None
        self._pixels = torch.empty(0, self.size, self.size, 3, dtype=torch.uint8, device=device)
        self._ready = 0  # rows of the pixels that are a batch

    def for_one(self) -> PhotoViews:
        """Return the same views, with loader processes of their own."""
        return PhotoViews(self._images, self._device, self._workers)

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""
        return draw_photo_view_numbers(seed, epoch, len(self.labels)).to(self._device)

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]], largest: int = 0) -> None:
        """Say which batches come next, in order; the loader processes begin to decode.

        Args:
            batches: indices and numbers of each, (B,) int64 on the CPU. Earlier ones are forgotten.
            largest: images in the largest batch that will ever come.
        """
        self._coming = list(batches)
        largest = max(largest, *(len(indices) for indices, _ in self._coming), 0)
        if largest > len(self._pixels):  # else they keep their place: a recorded step reads them
            self._pixels = self._pixels.new_empty(largest, self.size, self.size, 3)
        self._ready = 0
        self._run = self._loader.run([(i.numpy(), n.numpy()) for i, n in self._coming])

    def next(self) -> None:
        """Make the next of these batches ready; a step that still reads the last one is not hurt.

        Raises:
            DataError: a photo cannot be read, and which; or a loader process has died.
            ValueError: there is no next one.
        """
        made = None if self._run is None else next(self._run, None)
        if made is None:
            raise ValueError("no batch is left: tell the batches to come first, by begin()")
        self._ready = len(made)
        # In the order of the device's own work, from pinned memory, which waits for it.
        self._pixels[: self._ready].copy_(made, non_blocking=True)

    def batch(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return views of some images, (B, 3, H, W) float32, normalised, in channels-last order.

        They are those that `next` made ready; where it has made nothing ready since `begin`, they
        are decoded now.

        Args:
            indices: places in the training set, (B,).
            numbers: of each image's view, (B,).

        Raises:
            DataError: a photo cannot be read; names it.
            ValueError: other images than those that are ready; only seen on a CPU, where it costs
                nothing.
        """
        if not self._ready:
            pixels = self._loader.decode((indices.cpu().numpy(), numbers.cpu().numpy()))
            return self._normalised_rows(pixels.to(self._device))
        if self._device.type == "cpu":
            self._check(indices, numbers)
        return self._normalised_rows(self._pixels[: len(indices)])

    def _check(self, indices: Tensor, numbers: Tensor) -> None:
        ready = self._coming[self._run.done - 1]
        for asked, there in zip((indices, numbers), ready, strict=True):
            if not torch.equal(asked, there[: len(asked)]):
                raise ValueError("these images are not the ones that next() has made ready")

    def _normalised_rows(self, pixels: Tensor) -> Tensor:
        return self.normalise(pixels.permute(0, 3, 1, 2))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels scaled to [0, 1], less the mean, over the standard deviation."""
        rows = normalise_pixels(pixels.permute(0, 2, 3, 1).flatten(2), self._mean, self._std)
        return rows.unflatten(2, (self.size, CHANNELS)).permute(0, 3, 1, 2)

    def close(self) -> None:
        """End the loader processes; nothing can be begun afterwards."""
        self._loader.close()


class TestPhotos:
    """Test images in files: resized and cropped as the field does. Threads may share them."""

    on_device = False
    __test__ = False  # no test of pytest's

    def __init__(self, images: Images, device: torch.device, workers: int = 0) -> None:
        self._files, self._device, self._workers = images.test_images, device, workers
        self._own = threading.local()  # each thread's loader

    def batches(self, start: int, stop: int) -> Iterator[Tensor]:
        """Yield the images from a place on to before another, (B, 3, S, S) uint8 on the device.

        Raises:
            DataError: a photo cannot be read, and which; or a loader process has died.
        """
        places = torch.arange(start, stop).split(TEST_BATCH[self._device.type])
        for made in self._loader().run([(part.numpy(), None) for part in places if len(part)]):
            yield made.to(self._device, non_blocking=True).permute(0, 3, 1, 2)

    def _loader(self) -> PhotoLoader:
        if not hasattr(self._own, "loader"):
            self._own.loader = PhotoLoader(self._files, self._device, self._workers)
        return self._own.loader

    def close(self) -> None:
        """End the loader processes of this thread."""
        if hasattr(self._own, "loader"):
            self._own.loader.close()
            del self._own.loader
