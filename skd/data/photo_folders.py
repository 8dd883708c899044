"""Photos in ImageFolder layout, ``train/CLASS/*`` and ``val/CLASS/*``: whether all are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skd.data.images import DataError, Facts, Images
from skd.data.photo_files import PhotoFiles

# Of ImageNet's training images; every network of the field that was trained on photos expects them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMED = 5  # examples in a message


@dataclass(frozen=True)
class Part:
    """The training or the validation photos.

    Attributes:
        files: sorted by class, then by path.
        labels: places of their classes, (N,) int64.
        classes: the class folders' names, sorted.
    """

    files: PhotoFiles
    labels: Tensor
    classes: tuple[str, ...]


def load_folder(folder: Path, expected: Facts, what: str, advice: str) -> Images:
    """Return the photos of a folder; ``val`` has the test images.

    Args:
        folder: has ``train`` and ``val``.
        expected: how many classes and photos there have to be, and how large the views are.
        what: the data set's name in messages.
        advice: what to do where something is amiss; ends each message.

    Raises:
        DataError: another layout, other classes or other counts: what was found, what is expected.
    """
    parts = {}
    for name in ("train", "val"):
        try:
            parts[name] = _part(folder, name, expected.size)
            _check_classes(parts[name], expected.num_classes)
        except DataError as error:
            raise DataError(f"{what}: {folder / name} {error}. {advice}") from None
    train, test = parts["train"], parts["val"]
    try:
        _check_same_classes(train.classes, test.classes)
        _check_counts(train, "train", expected.train_images)
        _check_counts(test, "val", expected.test_images)
    except DataError as error:
        raise DataError(f"{what}: {folder}: {error}. {advice}") from None
    return Images(
        train_images=train.files,
        train_labels=train.labels,
        test_images=test.files,
        test_labels=test.labels,
        classes=train.classes,
        mean=MEAN,
        std=STD,
        pad=0,
    )


def _part(folder: Path, name: str, size: int) -> Part:
    """Return one part's photos, in torchvision's order.

    Raises:
        DataError: no such folder, or no classes in it.
    """
    from torchvision.datasets import folder as image_folder  # seconds to import

    top = folder / name
    if not top.is_dir():
        raise DataError("is not there")
    try:
        classes, _ = image_folder.find_classes(top)
    except FileNotFoundError:
        raise DataError(_why_no_classes(top, image_folder.IMG_EXTENSIONS)) from None
    found = []
    for place, label in enumerate(classes):  # one at a time: a list of all takes much memory
        pairs = image_folder.make_dataset(
            top, {label: place}, image_folder.IMG_EXTENSIONS, allow_empty=True
        )
        names = [os.fsencode(path.removeprefix(f"{folder}{os.sep}")) for path, _ in pairs]
        found.append(np.array(names, dtype=bytes))
    counts = torch.tensor([len(names) for names in found])
    return Part(
        files=PhotoFiles(folder, np.concatenate(found), size),
        labels=torch.arange(len(classes)).repeat_interleave(counts),
        classes=tuple(classes),
    )


def _why_no_classes(top: Path, extensions: tuple[str, ...]) -> str:
    """Say what is in a folder that has no class folders: the usual traps."""
    names = sorted(entry.name for entry in os.scandir(top))
    archives = [name for name in names if name.endswith(".tar")]
    photos = [name for name in names if name.lower().endswith(extensions)]
    if archives:
        return (
            f"has no class folders but {_several(len(archives), 'archive')} such as "
            f"{archives[0]}: unpack each into a folder of its name"
        )
    if photos:
        return (
            f"has no class folders but {_several(len(photos), 'photo')} such as {photos[0]}: "
            "sort them into a folder a class, named as those of train"
        )
    return f"has no class folders; found: {', '.join(names[:NAMED]) or 'nothing'}"


def _check_classes(part: Part, expected: int) -> None:
    """Refuse another number of classes, and classes without a photo.

    Raises:
        DataError: names them.
    """
    if len(part.classes) != expected:
        raise DataError(f"has {_several(len(part.classes), 'class folder')}, expected {expected}")
    counts = torch.bincount(part.labels, minlength=expected)
    empty = [name for name, count in zip(part.classes, counts.tolist(), strict=True) if not count]
    if empty:
        raise DataError(f"has no photo in {_some(empty)}")


def _check_same_classes(train: tuple[str, ...], test: tuple[str, ...]) -> None:
    """Refuse two parts of other classes.

    Raises:
        DataError: names those that one of them lacks.
    """
    lacks = [*_lacks("val", train, test), *_lacks("train", test, train)]
    if lacks:
        raise DataError(f"train and val have to have the same classes, but {' and '.join(lacks)}")


def _lacks(name: str, wanted: tuple[str, ...], there: tuple[str, ...]) -> Iterator[str]:
    missing = sorted(set(wanted) - set(there))
    if missing:
        yield f"{name} lacks {_some(missing)}"


def _check_counts(part: Part, name: str, expected: int) -> None:
    """Refuse another number of photos.

    Raises:
        DataError: both numbers, and the classes with the fewest and the most.
    """
    if len(part.files) != expected:
        counts = torch.bincount(part.labels).tolist()
        ordered = sorted(zip(counts, part.classes, strict=True))
        (fewest, first), (most, last) = ordered[0], ordered[-1]
        raise DataError(
            f"{name} has {len(part.files):,} photos, expected {expected:,} "
            f"(fewest in {first}: {fewest}, most in {last}: {most})"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
