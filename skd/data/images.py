"""A data set, in memory or as files of photos, and fixed, stratified parts of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skd.common.errors import SkdError
from skd.data.photos.files import PhotoFiles
from skd.randomness import random_words

# The field's split of CIFAR-100 for selection: 45,000 / 5,000.
VALIDATION_SHARE = 0.1
CHANNELS = 3  # of every data set's images: grey ones are repeated


class DataError(SkdError):
    """A data set is not at hand, smaller than asked, or damaged."""


def view_count(pad: int, flip: bool) -> int:
    """Return how many views augmentation makes of an image: crop offsets, times orientations."""
    return (2 * pad + 1) ** 2 * (2 if flip else 1)


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set without its files: enough to size networks and losses."""

    num_classes: int
    train_images: int
    test_images: int
    size: int
    pad: int = 4
    flip: bool = True
    photos: bool = False  # files, of which crops of any size and shape are views

    @property
    def views(self) -> int:
        """How many views of an image there are; 0: endless."""
        return 0 if self.photos else view_count(self.pad, self.flip)


@dataclass(frozen=True, eq=False)
class Images:
    """Training and test images of one data set.

    Attributes:
        train_images: (N, 3, H, W) uint8, or N files.
        train_labels: (N,) int64, class indices from 0.
        test_images: (M, 3, H, W) uint8, or M files.
        test_labels: (M,) int64.
        classes: names, in the order of the indices.
        mean: of each channel, in [0, 1], subtracted after scaling to [0, 1].
        std: of each channel.
        pad: zeros put round an image before a random crop of its own size; 0 of photos.
        flip: whether a mirrored image is as good (not so for digits).
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

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)


def stratified_order(labels: Tensor, purpose: str) -> Tensor:
    """Return a fixed order of all indices in which every prefix is balanced between classes.

    Pure in labels and purpose. The k-th image of each class comes before any class's k+1-th,
    classes in a random order within each rank.
    """
    count = len(labels)
    shuffled = np.argsort(random_words(0, purpose, 0, count), kind="stable")
    ranks = np.empty(count, dtype=np.int64)
    ordered = labels.numpy()[shuffled]
    for label in np.unique(ordered):
        places = np.flatnonzero(ordered == label)
        ranks[places] = np.arange(len(places))
    return torch.from_numpy(shuffled[np.argsort(ranks, kind="stable")])


def validation_count(count: int) -> int:
    """Return how many of so many training images the validation split holds out."""
    return round(VALIDATION_SHARE * count)


def validation_split(images: Images) -> Images:
    """Return the training images alone, a tenth of each class held out as the test images."""
    order = stratified_order(images.train_labels, "validation split")
    held_out = validation_count(len(order))
    test, train = order[:held_out].sort().values, order[held_out:].sort().values
    return replace(
        images,
        train_images=images.train_images[train],
        train_labels=images.train_labels[train],
        test_images=images.train_images[test],
        test_labels=images.train_labels[test],
    )


def limit_training_images(images: Images, count: int) -> Images:
    """Return the data set with ``count`` training images, classes balanced.

    Raises:
        DataError: there are fewer.
    """
    check_train_limit(count, len(images.train_labels))
    kept = stratified_order(images.train_labels, "training limit")[:count].sort().values
    return replace(
        images, train_images=images.train_images[kept], train_labels=images.train_labels[kept]
    )


def check_train_limit(count: int, there: int) -> None:
    """Refuse to train on more images than there are.

    Raises:
        DataError: names both numbers.
    """
    if count > there:
        raise DataError(f"train_limit: {count} images asked for, there are {there}")
