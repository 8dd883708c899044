"""Images loaded as in common practice: one by one with PIL, in a loader's worker processes."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from skd.data.images import Images


class PILDataset(Dataset):
    """A data set that loads images as torchvision's CIFAR100 does, and returns their index too.

    Items are (transformed image, label, index).
    """

    def __init__(self, pixels: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.data = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
        self.targets = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple:
        image = self.transform(Image.fromarray(self.data[index]))
        return image, self.targets[index], index


class PILDatasetWithNegatives(PILDataset):
    """A data set whose items also contain ``negatives`` indices of images of other classes.

    They are the last part of an item, an int64 array. They are drawn from NumPy's global generator,
    which a loader seeds in each worker, so they are not reproducible, as in common practice.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, transform: transforms.Compose, negatives: int
    ) -> None:
        super().__init__(pixels, labels, transform)
        self.negatives = negatives
        self.others = [
            np.flatnonzero(labels.numpy() != label) for label in range(int(labels.max()) + 1)
        ]

    def __getitem__(self, index: int) -> tuple:
        others = self.others[self.targets[index]]
        drawn = np.random.choice(others, self.negatives, replace=len(others) < self.negatives)
        return *super().__getitem__(index), drawn


def train_loader(
    images: Images, batch_size: int, workers: int, pin: bool, negatives: int | None = None
) -> DataLoader:
    """Return shuffled batches of augmented training images, labels, indices (and negatives)."""
    size = images.train_images.shape[-1]
    augmented = [transforms.RandomCrop(size, padding=images.pad)]
    augmented += [transforms.RandomHorizontalFlip()] if images.flip else []
    transform = transforms.Compose([*augmented, *_normalised(images)])
    if negatives is None:
        pictures = PILDataset(images.train_images, images.train_labels, transform)
    else:
        pictures = PILDatasetWithNegatives(
            images.train_images, images.train_labels, transform, negatives
        )
    return _loader(pictures, batch_size, workers, pin, shuffle=True)


def test_loader(images: Images, batch_size: int, workers: int, pin: bool) -> DataLoader:
    """Return batches of the test images in order, normalised only, labels and indices."""
    transform = transforms.Compose(_normalised(images))
    pictures = PILDataset(images.test_images, images.test_labels, transform)
    return _loader(pictures, batch_size, workers, pin, shuffle=False)


def _normalised(images: Images) -> list:
    return [transforms.ToTensor(), transforms.Normalize(images.mean, images.std)]


def _loader(
    pictures: PILDataset, batch_size: int, workers: int, pin: bool, shuffle: bool
) -> DataLoader:
    return DataLoader(
        pictures,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
    )
