"""Photos in ImageFolder layout, ``train/CLASS/*`` and ``val/CLASS/*``, checked for completeness.

Files and folders whose names start with a dot are ignored: other programs leave some behind, as
``.ipynb_checkpoints`` or macOS's ``._0.jpg``, which is not an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skd.data.images import DataError, DatasetFacts, Images
from skd.data.photos.files import PhotoFiles

# Of ImageNet's training images; published networks for photos expect this normalisation.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_EXAMPLES = 5  # in a message


@dataclass(frozen=True)
class PhotoSplit:
    """The training or the validation photos.

    Attributes:
        files: the photos, sorted by class, then by path.
        labels: class indices of the photos, (N,) int64.
        classes: the class folders' names, sorted.
    """

    files: PhotoFiles
    labels: Tensor
    classes: tuple[str, ...]


def load_folder(folder: Path, expected: DatasetFacts, dataset: str, advice: str) -> Images:
    """Return the photos of a folder; ``val`` has the test images.

    Args:
        folder: contains ``train`` and ``val``.
        expected: the required numbers of classes and photos, and the size of the views.
        dataset: the data set's name in messages.
        advice: how to correct the folder; ends each message.

    Raises:
        DataError: another layout, other classes or other counts; says what the folder has and what
            is expected.
    """
    splits = {}
    for name in ("train", "val"):
        with _error_context(f"{dataset}: {folder / name}", advice):
            splits[name] = _load_split(folder, name, expected.size)
    train, test = splits["train"], splits["val"]
    for name, split, other in (("train", train, test), ("val", test, train)):
        with _error_context(f"{dataset}: {folder / name}", advice):
            _check_classes(split, folder / name, expected.num_classes, other.classes)
    with _error_context(f"{dataset}: {folder}:", advice):
        _check_same_classes(train.classes, test.classes)
        _check_counts(train, "train", expected.train_images)
        _check_counts(test, "val", expected.test_images)
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


@contextmanager
def _error_context(place: str, advice: str) -> Iterator[None]:
    """Add a place before the message of a DataError, and advice after it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place} {error}. {advice}") from None


def _load_split(folder: Path, name: str, size: int) -> PhotoSplit:
    """Return one split's photos, in torchvision's order.

    Raises:
        DataError: the folder does not exist, or contains no class folders.
    """
    top = folder / name
    if not top.is_dir():
        raise DataError("does not exist")
    classes = class_folders(top)
    if not classes:
        raise DataError(_no_classes_message(top))
    paths = []
    for label in classes:  # class by class: one list of all strings would take too much memory
        names = [
            os.fsencode(path.removeprefix(f"{folder}{os.sep}")) for path in photo_paths(top, label)
        ]
        paths.append(np.array(names, dtype=bytes))
    counts = torch.tensor([len(names) for names in paths])
    return PhotoSplit(
        files=PhotoFiles(folder, np.concatenate(paths), size),
        labels=torch.arange(len(classes)).repeat_interleave(counts),
        classes=tuple(classes),
    )


def class_folders(top: Path) -> list[str]:
    """Return the sorted names of the class folders in a folder."""
    return sorted(
        entry.name for entry in os.scandir(top) if entry.is_dir() and not _is_hidden(entry)
    )


def photo_paths(top: Path, label: str) -> list[str]:
    """Return the paths of a class folder's photos, in torchvision's order, without hidden files."""
    from torchvision.datasets import folder as image_folder  # takes seconds to import

    samples = image_folder.make_dataset(
        top, {label: 0}, image_folder.IMG_EXTENSIONS, allow_empty=True
    )
    prefix = len(f"{top}{os.sep}")
    return [path for path, _ in samples if f"{os.sep}." not in path[prefix:]]


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _no_classes_message(top: Path) -> str:
    """Describe the content of a folder without class folders: archives or unsorted photos."""
    extensions = _extensions()
    names = sorted(entry.name for entry in os.scandir(top) if not _is_hidden(entry))
    archives = [name for name in names if name.endswith(".tar")]
    photos = [name for name in names if name.lower().endswith(extensions)]
    if archives:
        return (
            f"has no class folders but {_counted(len(archives), 'archive')} such as "
            f"{archives[0]}: unpack each into a folder of the same name"
        )
    if photos:
        return (
            f"has no class folders but {_counted(len(photos), 'photo')} such as {photos[0]}: "
            "sort them into one folder per class, named as in train"
        )
    return f"has no class folders; it contains: {', '.join(names[:MAX_EXAMPLES]) or 'nothing'}"


def _check_classes(split: PhotoSplit, top: Path, expected: int, other: tuple[str, ...]) -> None:
    """Check the number of classes, and that each class has a photo.

    Args:
        split: the training or the validation photos.
        top: their folder.
        expected: number of classes.
        other: classes of the other split.

    Raises:
        DataError: the number differs or a class is empty; names the classes.
    """
    counts = torch.bincount(split.labels, minlength=len(split.classes))
    pairs = zip(split.classes, counts.tolist(), strict=True)
    empty = [label for label, count in pairs if not count]
    if len(split.classes) != expected:
        unmatched = [label for label in split.classes if label not in other]
        remarks = {"only in this folder": unmatched, "without a photo": empty}
        details = [f"; {remark}: {_listed(labels)}" for remark, labels in remarks.items() if labels]
        raise DataError(
            f"has {_counted(len(split.classes), 'class folder')}, expected {expected}: "
            f"{_listed([*split.classes])}{''.join(details)}"
        )
    if empty:
        raise DataError(f"has no photo in {_listed(empty)}{_other_files_remark(top, empty)}")


def _check_same_classes(train: tuple[str, ...], test: tuple[str, ...]) -> None:
    """Check that both splits have the same classes.

    Raises:
        DataError: they differ; names the classes that are missing in each split.
    """
    missing = [*_missing_classes("val", train, test), *_missing_classes("train", test, train)]
    if missing:
        raise DataError(f"train and val must have the same classes, but {' and '.join(missing)}")


def _missing_classes(
    name: str, required: tuple[str, ...], present: tuple[str, ...]
) -> Iterator[str]:
    missing = sorted(set(required) - set(present))
    if missing:
        yield f"{name} lacks {_listed(missing)}"


def _check_counts(split: PhotoSplit, name: str, expected: int) -> None:
    """Check the number of photos of a split.

    Raises:
        DataError: it differs; gives both numbers, and the classes with the fewest and most photos.
    """
    if len(split.files) != expected:
        counts = torch.bincount(split.labels).tolist()
        ordered = sorted(zip(counts, split.classes, strict=True))
        (fewest, first), (most, last) = ordered[0], ordered[-1]
        raise DataError(
            f"{name} has {len(split.files):,} photos, expected {expected:,} "
            f"(fewest in {first}: {fewest}, most in {last}: {most})"
            f"{_other_files_remark(split.files.root / name, split.classes)}"
        )


def _other_files_remark(top: Path, classes: Iterable[str]) -> str:
    """Return a remark on files in class folders whose extensions are not those of photos."""
    paths = []
    for label in classes:
        for folder, _, names in os.walk(top / label, followlinks=True):
            relative = Path(folder).relative_to(top)
            paths += [
                str(relative / name)
                for name in sorted(names)
                if not name.startswith(".") and not name.lower().endswith(_extensions())
            ]
    if not paths:
        return ""
    return (
        f"; not counted, because of their file name extensions: {_listed(paths)} (convert them to "
        f"one of {', '.join(_extensions())}, or remove them)"
    )


def _extensions() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # takes seconds to import

    return IMG_EXTENSIONS


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
    return f"{', '.join(names[:MAX_EXAMPLES])}{more}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
