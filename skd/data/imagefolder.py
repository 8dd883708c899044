"""The user's own photos, one folder per class; the sheet gives their folder and expected counts."""

from __future__ import annotations

from pathlib import Path

from skd.data.images import DatasetFacts, Images
from skd.data.photos.folders import load_folder
from skd.study.spec import FolderSpec


def facts(folder: FolderSpec) -> DatasetFacts:
    """Return the facts that the sheet gives about the photos."""
    return DatasetFacts(
        num_classes=folder.classes,
        train_images=folder.train_images,
        test_images=folder.test_images,
        size=folder.size,
        photos=True,
    )


def load(root: Path, folder: FolderSpec) -> Images:
    """Return the photos of a folder below the root.

    Raises:
        DataError: the photos are missing, or their counts are not those of the sheet.
    """
    advice = (
        "Put one folder per class, with intact photos only, into each of train and val, correct "
        "the sheet's dataset.folder, or set SKD_DATA to the folder that its path is relative to"
    )
    return load_folder(root / folder.path, facts(folder), "imagefolder", advice)
