"""A data set, in memory or as files of photos, and its fixed stratified subsets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skd.common.errors import SkdError
from skd.data.photos.files import PhotoFiles
from skd.randomness import random_words

# The usual split of CIFAR-100 for model selection: 45,000 / 5,000.
VALIDATION_SHARE = 0.1
CHANNELS = 3  # of every data set's images: grey images are repeated


class DataError(SkdError):
    """A data set is missing, damaged, or smaller than required."""


def view_count(pad: int, flip: bool) -> int:
    """Return the number of views of an image: crop offsets times orientations."""
    return (2 * pad + 1) ** 2 * (2 if flip else 1)


@dataclass(frozen=True)
class DatasetFacts:
    """Facts about a data set that are known without its files, to size networks and losses."""

    num_classes: int
    train_images: int
    test_images: int
    size: int
    pad: int = 4
    flip: bool = True
    photos: bool = False  # the images are files, and a view is a crop of any size and shape

    @property
    def views(self) -> int:
        """Number of views of an image; 0 if it is unlimited."""
        return 0 if self.photos else view_count(self.pad, self.flip)


@dataclass(frozen=True, eq=False)
class Images:
    """Training and test images of one data set.

    Attributes:
        train_images: (N, 3, H, W) uint8, or N files.
        train_labels: (N,) int64, class indices from 0.
        test_images: (M, 3, H, W) uint8, or M files.
        test_labels: (M,) int64.
        classes: the classes' names, by index.
        mean: mean of each channel, subtracted after scaling to [0, 1].
        std: standard deviation of each channel.
        pad: width of the zero padding before a random crop of the image's size; 0 for photos.
        flip: whether augmentation mirrors images (it does not mirror digits).
        groups: (N,) int64, equal for training images of one origin, which the validation split
            keeps together. From 0 without gaps, all of one size and each of one class. ``None``:
            the images are unrelated.
    """

    train_images: Tensor | PhotoFiles
    train_labels: Tensor
    test_images: Tensor | PhotoFiles
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: int = 4
    flip: bool = True
    groups: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)


def stratified_order(labels: Tensor, purpose: str) -> Tensor:
    """Return a fixed order of all indices in which every prefix is balanced between classes.

    A pure function of labels and purpose. The k-th image of each class comes before the k+1-th
    image of any class; within each rank, the classes are in a random order.
    """
    count = len(labels)
    shuffled = np.argsort(random_words(0, purpose, 0, count), kind="stable")
    ranks = np.empty(count, dtype=np.int64)
    ordered = labels.numpy()[shuffled]
    for label in np.unique(ordered):
        positions = np.flatnonzero(ordered == label)
        ranks[positions] = np.arange(len(positions))
    return torch.from_numpy(shuffled[np.argsort(ranks, kind="stable")])


def validation_count(count: int) -> int:
    """Return how many of `count` training images the validation split holds out."""
    return round(VALIDATION_SHARE * count)


def validation_split(images: Images) -> Images:
    """Split the training images: a tenth of each class becomes the test images.

    Images of one group stay together.
    """
    order = _grouped_order(images, "validation split")
    held_out = validation_count(len(order))
    test, train = order[:held_out].sort().values, order[held_out:].sort().values
    return replace(
        images,
        train_images=images.train_images[train],
        train_labels=images.train_labels[train],
        test_images=images.train_images[test],
        test_labels=images.train_labels[test],
        groups=None,
    )


def _grouped_order(images: Images, purpose: str) -> Tensor:
    """Return a stratified order of the training images in which groups stay together."""
    if images.groups is None:
        return stratified_order(images.train_labels, purpose)
    members = images.groups.argsort(stable=True).view(int(images.groups.max()) + 1, -1)
    return members[stratified_order(images.train_labels[members[:, 0]], purpose)].flatten()


def limit_training_images(images: Images, count: int) -> Images:
    """Return the data set with ``count`` training images, balanced between classes.

    Raises:
        DataError: the data set has fewer training images.
    """
    check_train_limit(count, len(images.train_labels))
    indices = stratified_order(images.train_labels, "training limit")[:count].sort().values
    return replace(
        images,
        train_images=images.train_images[indices],
        train_labels=images.train_labels[indices],
        groups=None,
    )


def check_train_limit(limit: int, available: int) -> None:
    """Check that a training limit does not exceed the number of training images.

    Raises:
        DataError: it does; names both numbers.
    """
    if limit > available:
        raise DataError(
            f"train_limit: {limit} exceeds the number of training images, {available}; lower it"
        )
