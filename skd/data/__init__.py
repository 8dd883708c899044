"""Data sets, one file each: `load(spec)` finds the file of the spec's name.

A data set's file has ``FACTS`` and ``load(root) -> Images``. Its training and test images live in
memory as uint8; views are made from them in whole batches (`skd.data.views`).
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from skd.data.images import (
    Facts,
    Images,
    check_limit,
    held_out_for_validation,
    limit,
    validation_split,
)
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
    images = _module(spec.name).load(data_root())
    if spec.split == "validation":
        images = validation_split(images)
    return limit(images, spec.train_limit) if spec.train_limit else images


def facts(spec: DatasetSpec) -> Facts:
    """Return what `load` will give, without the files.

    Raises:
        UnknownNameError: unknown name; names the allowed ones.
        DataError: more training images are asked for than there are.
    """
    known = _module(spec.name).FACTS
    count, evaluated = known.train_images, known.test_images
    if spec.split == "validation":
        evaluated = held_out_for_validation(count)
        count -= evaluated
    if spec.train_limit:
        check_limit(spec.train_limit, count)
        count = spec.train_limit
    return replace(known, train_images=count, test_images=evaluated)


def _module(name: str) -> ModuleType:
    if name not in dataset_names():
        raise UnknownNameError("data set", name, dataset_names())
    return importlib.import_module(f"skd.data.{name}")
