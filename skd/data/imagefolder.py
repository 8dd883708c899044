"""Anyone's photos in folders by class; the sheet says where they are and how many to expect."""

from __future__ import annotations

from pathlib import Path

from skd.data.images import DatasetFacts, Images
from skd.data.photos.folders import load_folder
from skd.study.spec import FolderSpec


def facts(folder: FolderSpec) -> DatasetFacts:
    """Return what the sheet says of them."""
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
        DataError: they are not there, or not as many as the sheet says.
    """
    advice = (
        "Put one folder a class, of whole photos and nothing else, into each of train and val, "
        "correct the sheet's dataset.folder, or point SKD_DATA at the folder that its path starts "
        "from"
    )
    return load_folder(root / folder.path, facts(folder), "imagefolder", advice)
