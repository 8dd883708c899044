"""Photos in ImageFolder layout, ``train/CLASS/*`` and ``val/CLASS/*``: whether all are there.

What is hidden, by a dot at the start of its name, is no class and no photo: programs leave such
files and folders behind, as ``.ipynb_checkpoints`` or macOS's ``._0.jpg``, which is no image.
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

# Of ImageNet's training images; every network of the field that was trained on photos expects them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_EXAMPLES = 5  # examples in a message


@dataclass(frozen=True)
class PhotoSplit:
    """The training or the validation photos.

    Attributes:
        files: sorted by class, then by path.
        labels: places of their classes, (N,) int64.
        classes: the class folders' names, sorted.
    """

    files: PhotoFiles
    labels: Tensor
    classes: tuple[str, ...]


def load_folder(folder: Path, expected: DatasetFacts, what: str, advice: str) -> Images:
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
        with _told(f"{what}: {folder / name}", advice):
            parts[name] = _part(folder, name, expected.size)
    train, test = parts["train"], parts["val"]
    for name, part, other in (("train", train, test), ("val", test, train)):
        with _told(f"{what}: {folder / name}", advice):
            _check_classes(part, folder / name, expected.num_classes, other.classes)
    with _told(f"{what}: {folder}:", advice):
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
def _told(where: str, advice: str) -> Iterator[None]:
    """Put a place before an error, and advice behind it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where} {error}. {advice}") from None


def _part(folder: Path, name: str, size: int) -> PhotoSplit:
    """Return one part's photos, in torchvision's order.

    Raises:
        DataError: no such folder, or no classes in it.
    """
    top = folder / name
    if not top.is_dir():
        raise DataError("is not there")
    classes = class_folders(top)
    if not classes:
        raise DataError(_why_no_classes(top))
    found = []
    for label in classes:  # one at a time: a list of all takes much memory
        names = [
            os.fsencode(path.removeprefix(f"{folder}{os.sep}")) for path in photo_paths(top, label)
        ]
        found.append(np.array(names, dtype=bytes))
    counts = torch.tensor([len(names) for names in found])
    return PhotoSplit(
        files=PhotoFiles(folder, np.concatenate(found), size),
        labels=torch.arange(len(classes)).repeat_interleave(counts),
        classes=tuple(classes),
    )


def class_folders(top: Path) -> list[str]:
    """Return the names of the class folders in a folder, sorted."""
    return sorted(entry.name for entry in os.scandir(top) if entry.is_dir() and not _hidden(entry))


def photo_paths(top: Path, label: str) -> list[str]:
    """Return the paths of a class folder's photos, in torchvision's order; hidden ones are none."""
    from torchvision.datasets import folder as image_folder  # seconds to import

    found = image_folder.make_dataset(
        top, {label: 0}, image_folder.IMG_EXTENSIONS, allow_empty=True
    )
    begin = len(f"{top}{os.sep}")
    return [path for path, _ in found if f"{os.sep}." not in path[begin:]]


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _why_no_classes(top: Path) -> str:
    """Say what is in a folder that has no class folders: the usual traps."""
    extensions = _extensions()
    names = sorted(entry.name for entry in os.scandir(top) if not _hidden(entry))
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
    return f"has no class folders; found: {', '.join(names[:MAX_EXAMPLES]) or 'nothing'}"


def _check_classes(part: PhotoSplit, top: Path, expected: int, other: tuple[str, ...]) -> None:
    """Refuse another number of classes, and classes without a photo.

    Args:
        part: the training or the validation photos.
        top: their folder.
        expected: number of classes.
        other: classes of the other part.

    Raises:
        DataError: names them.
    """
    counts = torch.bincount(part.labels, minlength=len(part.classes))
    pairs = zip(part.classes, counts.tolist(), strict=True)
    empty = [label for label, count in pairs if not count]
    if len(part.classes) != expected:
        alone = [label for label in part.classes if label not in other]
        odd = {"here only": alone, "without a photo": empty}
        remarks = [f"; {why}: {_some(labels)}" for why, labels in odd.items() if labels]
        raise DataError(
            f"has {_several(len(part.classes), 'class folder')}, expected {expected}: "
            f"{_some([*part.classes])}{''.join(remarks)}"
        )
    if empty:
        raise DataError(f"has no photo in {_some(empty)}{_others(top, empty)}")


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


def _check_counts(part: PhotoSplit, name: str, expected: int) -> None:
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
            f"{_others(part.files.root / name, part.classes)}"
        )


def _others(top: Path, classes: Iterable[str]) -> str:
    """Return a remark on files in class folders that are no photos by the ends of their names."""
    found = []
    for label in classes:
        for folder, _, names in os.walk(top / label, followlinks=True):
            place = Path(folder).relative_to(top)
            found += [
                str(place / name)
                for name in sorted(names)
                if not name.startswith(".") and not name.lower().endswith(_extensions())
            ]
    if not found:
        return ""
    return (
        f"; not counted, as no photos by the ends of their names: {_some(found)} (photos end in "
        f"{', '.join(_extensions())}: convert them, or remove them)"
    )


def _extensions() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS  # seconds to import

    return IMG_EXTENSIONS


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
    return f"{', '.join(names[:MAX_EXAMPLES])}{more}"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
