"""Views of photos, decoded ahead of the training.

Pixels go to the device as uint8, a quarter of the size of float32, and are normalised there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from skd.data.augmentation.policies import Policy
from skd.data.images import CHANNELS, Images
from skd.data.photos.loader import PhotoLoader
from skd.data.photos.random_resized_crop import draw_photo_view_numbers
from skd.data.prepared_views import TRAINING_VIEWS, PreparedViews, ScheduledBatch
from skd.data.views import TestImages, normalise_pixels

# Images per forward pass; a loader process decodes one such batch at a time.
TEST_BATCH = {"cpu": 50, "cuda": 128}


class PhotoViews(PreparedViews):
    """Views of photos that are decoded from files, for one training.

    Args:
        images: the data set; its training images are files.
        device: the training's device.
        workers: number of processes that decode; 0 decodes in this process.
        policy: strong augmentation of the views; ``None``: crops and flips only.
        stream: name of the random stream that chooses the views.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        workers: int = 0,
        policy: Policy | None = None,
        stream: str = TRAINING_VIEWS,
    ) -> None:
        super().__init__(images.train_labels.to(device), images.train_images.size)
        self._images, self._workers = images, workers
        self._policy, self._random_stream = policy, stream
        # Repeated for a row of pixels, channels last: a third of the time of (3,) on a CPU.
        self._mean = torch.tensor(images.mean, device=device).repeat(self.size)
        self._std = torch.tensor(images.std, device=device).repeat(self.size)
        self._loader = PhotoLoader(images.train_images, device, workers, policy)

    def for_training(self) -> PhotoViews:
        """Return the same views with separate loader processes."""
        return self.augmented(self._policy, self._random_stream)

    def augmented(self, policy: Policy | None, stream: str = TRAINING_VIEWS) -> PhotoViews:
        """Return other views of the same photos, with separate loader processes."""
        return PhotoViews(self._images, self.device, self._workers, policy, stream)

    def draw_epoch(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""
        numbers = draw_photo_view_numbers(seed, epoch, len(self.labels), self._random_stream)
        return numbers.to(self.device)

    def prepare(self, batches: list[ScheduledBatch]) -> Iterator[Tensor]:
        """Start to decode batches in the loader processes: see `PreparedViews.prepare`."""
        return self._loader.stream([(i.numpy(), n.numpy()) for i, n in batches])

    def make(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Decode a batch in this process: see `PreparedViews.make`."""
        return self._loader.decode((indices.cpu().numpy(), numbers.cpu().numpy())).to(self.device)

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
