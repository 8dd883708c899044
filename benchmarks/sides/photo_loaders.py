"""Two loaders of training photos: ours, and the field's: torchvision's, as its reference trains."""

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
# A side: how many batches of a round it has given, as they come.
RoundLoader = Callable[[int], Iterator[Tensor]]


class PhotoRounds:
    """A folder with a folder a class, and which of its photos each round sees.

    Raises:
        BenchError: no such folder, or fewer photos than a batch.
    """

    def __init__(self, folder: Path, batch_size: int, images: int) -> None:
        self.folder, self.batch_size = folder, batch_size
        labels = class_folders(folder) if folder.is_dir() else []
        self.paths = [Path(name) for label in labels for name in photo_paths(folder, label)]
        if not self.paths:
            why = "it has none" if folder.is_dir() else "it is no folder"
            raise BenchError(f"{folder} has no photos in folders by class: {why}")
        if len(self.paths) < batch_size:
            raise BenchError(
                f"{folder} has {len(self.paths)} photos, and a batch takes {batch_size}: name a "
                "larger folder, or a smaller --batch"
            )
        self.images = min(images, len(self.paths)) // batch_size * batch_size or batch_size

    def batches(self, number: int) -> tuple[Tensor, ...]:
        """Return the places of a round's photos, batch by batch."""
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
        told = [(places, numbers[places]) for places in photos.batches(number)]
        views.schedule_batches(told)
        for places, drawn in told:
            views.load_next_batch()
            yield views.batch(places, drawn)

    return batches


def torchvision_loader(photos: PhotoRounds, device: torch.device, workers: int) -> RoundLoader:
    """Return torchvision's: what its classification reference trains with, as it comes."""
    crop = transforms.RandomResizedCrop(CROP_SIZE, antialias=True)
    steps = [
        crop,
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize(MEAN, STD),
    ]
    told: list[list[int]] = []
    dataset = ImageFolder(photos.folder, transforms.Compose(steps), allow_empty=True)
    dataset.samples = [(str(path), 0) for path in photos.paths]  # without hidden files
    loader = DataLoader(
        dataset,
        batch_sampler=told,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def batches(number: int) -> Iterator[Tensor]:
        told[:] = [places.tolist() for places in photos.batches(number)]
        for pixels, _ in loader:
            yield pixels.to(device, non_blocking=True)

    return batches


def measure_throughput(
    side: RoundLoader, round_number: int, photos: PhotoRounds, device: torch.device
) -> float:
    """Return how fast a side gives a round's photos, from its start to the last on the device.

    Raises:
        BenchError: it gave others than it was told.
    """
    begun, given = time.perf_counter(), 0
    for batch in side(round_number):
        given += len(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    passed = time.perf_counter() - begun
    if given != photos.images:
        raise BenchError(f"a loader gave {given} photos of {photos.images}")
    return given / passed
