"""Data sets, one file each: `load(spec)` finds the file of the spec's name.

A data set's file has ``load(root) -> Images``. Its training and test images live in memory
as uint8; views are made from them in whole batches (`skd.data.views`).
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

from skd.data.images import Images, limit, validation_split
from skd.errors import UnknownNameError
from skd.spec import DatasetSpec

_HELPERS = {"images", "views"}


def dataset_names() -> list[str]:
    """Return the names of all data sets."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS
    )


def data_root() -> Path:
    """Return where data sets are looked for and downloaded to: ``$SKD_DATA`` or ``data/``."""
    return Path(os.environ.get("SKD_DATA", "data"))


def load(spec: DatasetSpec) -> Images:
    """Load a data set, with its validation split and training limit applied.

    Raises:
        UnknownNameError: unknown name; names the allowed ones.
        DataError: the files are neither at hand nor to be had; says where they belong.
    """
    if spec.name not in dataset_names():
        raise UnknownNameError("data set", spec.name, dataset_names())
    images = importlib.import_module(f"skd.data.{spec.name}").load(data_root())
    if spec.split == "validation":
        images = validation_split(images)
    return limit(images, spec.train_limit) if spec.train_limit else images
