"""Two loaders of training photos: ours, and that of torchvision's training reference."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.results import BenchError
from skd.data.images import Images
from skd.data.photos.files import PhotoFiles
from skd.data.photos.folders import MEAN, STD, class_folders, photo_paths
from skd.data.photos.views import PhotoViews
from skd.data.views import epoch_order

CROP_SIZE = 224
# Yields the batches of a round, given the round's number.
RoundLoader = Callable[[int], Iterator[Tensor]]


class PhotoRounds:
    """The photos of a folder with a subfolder for each class, and their order in each round.

    Raises:
        BenchError: there is no such folder, or it has fewer photos than a batch.
    """

    def __init__(self, folder: Path, batch_size: int, images: int) -> None:
        self.folder, self.batch_size = folder, batch_size
        labels = class_folders(folder) if folder.is_dir() else []
        self.paths = [Path(name) for label in labels for name in photo_paths(folder, label)]
        if not self.paths:
            reason = "no photo was found" if folder.is_dir() else "it is not a folder"
            raise BenchError(f"{folder} has no photos in folders by class: {reason}")
        if len(self.paths) < batch_size:
            raise BenchError(
                f"{folder} has {len(self.paths)} photos, but a batch has {batch_size}: use a "
                "larger folder or a smaller --batch"
            )
        self.images = min(images, len(self.paths)) // batch_size * batch_size or batch_size

    def batches(self, number: int) -> tuple[Tensor, ...]:
        """Return the indices of a round's photos, batch by batch."""
        order = epoch_order(0, number, len(self.paths))[: self.images]
        return order.split(self.batch_size)


def skd_loader(photos: PhotoRounds, device: torch.device, workers: int) -> RoundLoader:
    """Return our loader, as a training uses it."""
    names = [os.fsencode(path.relative_to(photos.folder)) for path in photos.paths]
    files = PhotoFiles(photos.folder, np.array(names, dtype=bytes), CROP_SIZE)
    labels = torch.zeros(len(names), dtype=torch.int64)
    images = Images(files, labels, files[:0], labels[:0], ("any",), MEAN, STD, pad=0)
    views = PhotoViews(images, device, workers)

    def batches(number: int) -> Iterator[Tensor]:
        numbers = views.draw_epoch(0, number).cpu()
        scheduled = [(indices, numbers[indices]) for indices in photos.batches(number)]
        views.schedule_batches(scheduled)
        for indices, drawn in scheduled:
            views.load_next_batch()
            yield views.batch(indices, drawn)

    return batches


def torchvision_loader(photos: PhotoRounds, device: torch.device, workers: int) -> RoundLoader:
    """Return the loader of torchvision's classification reference."""
    crop = transforms.RandomResizedCrop(CROP_SIZE, antialias=True)
    steps = [
        crop,
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize(MEAN, STD),
    ]
    scheduled: list[list[int]] = []
    dataset = ImageFolder(photos.folder, transforms.Compose(steps), allow_empty=True)
    dataset.samples = [(str(path), 0) for path in photos.paths]  # without hidden files
    loader = DataLoader(
        dataset,
        batch_sampler=scheduled,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def batches(number: int) -> Iterator[Tensor]:
        scheduled[:] = [indices.tolist() for indices in photos.batches(number)]
        for pixels, _ in loader:
            yield pixels.to(device, non_blocking=True)

    return batches


def measure_throughput(
    side: RoundLoader, round_number: int, photos: PhotoRounds, device: torch.device
) -> float:
    """Return a loader's photos per second in a round, until the last is on the device.

    Raises:
        BenchError: it loaded the wrong number of photos.
    """
    started, count = time.perf_counter(), 0
    for batch in side(round_number):
        count += len(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    passed = time.perf_counter() - started
    if count != photos.images:
        raise BenchError(f"a loader gave {count} photos of {photos.images}")
    return count / passed
