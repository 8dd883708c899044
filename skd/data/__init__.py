"""Data sets, one file each, by name: `load_dataset(spec)` loads a data set.

A data set's file defines ``FACTS`` and ``load(root) -> Images``. Its images are either uint8
tensors in memory, from which whole batches of views are computed (`skd.data.views`), or photos that
stay in their files (`skd.data.photos.views`).
"""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from skd.common.errors import UnknownNameError
from skd.common.files import path_from_environment
from skd.common.plugins import BrokenFileError, load_module, module_file, module_from_elsewhere
from skd.data import imagefolder
from skd.data.augmentation.policies import STRONG_VIEW, TRIVIALAUGMENT, Policy, randaugment
from skd.data.augmented_views import AugmentedViews
from skd.data.images import (
    DatasetFacts,
    Images,
    check_train_limit,
    limit_training_images,
    validation_count,
    validation_split,
)
from skd.data.photos.files import PhotoFiles
from skd.data.photos.views import PhotoViews, TestPhotos
from skd.data.prepared_views import STRONG_VIEWS, TRAINING_VIEWS
from skd.data.views import PixelViews, TestImages, TestPixels, Views
from skd.study.spec import FOLDER_DATASET, DatasetSpec, Recipe

_HELPERS = {
    *("augmentation", "augmented_views", "images", "mixing", "photos", "prepared_views", "views"),
}


def dataset_names() -> list[str]:
    """Return the names of all data sets."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS
    )


@contextlib.contextmanager
def dataset_of_file(file: Path) -> Iterator[str]:
    """Add the data set of a file outside this package within the context, as if it were in it.

    Yields:
        The data set's name.

    Raises:
        BrokenFileError: the file does not exist, or has the name of a data set.
    """
    with module_from_elsewhere(__name__, file) as name:
        yield name


def data_root() -> Path:
    """Return the folder of data sets, also for downloads: ``$SKD_DATA`` or ``data/``."""
    return path_from_environment("SKD_DATA") or Path("data")


def load_dataset(spec: DatasetSpec) -> Images:
    """Load a data set, with its validation split and training limit applied.

    Raises:
        BrokenFileError: the data set's module cannot be used; says why.
        UnknownNameError: unknown name; names the allowed ones.
        DataError: the files are missing and cannot be downloaded; says where to put them.
    """
    if spec.folder:
        images = imagefolder.load(data_root(), spec.folder)
    else:
        images = _module(spec.name).load(data_root())
    if spec.split == "validation":
        images = validation_split(images)
    return limit_training_images(images, spec.train_limit) if spec.train_limit else images


def dataset_facts(spec: DatasetSpec) -> DatasetFacts:
    """Return the facts about a data set as `load_dataset` returns it, without reading its files.

    Raises:
        BrokenFileError, UnknownNameError: as `load_dataset`.
        DataError: the training limit exceeds the number of training images.
    """
    known = imagefolder.facts(spec.folder) if spec.folder else _module(spec.name).FACTS
    count, evaluated = known.train_images, known.test_images
    if spec.split == "validation":
        evaluated = validation_count(count)
        count -= evaluated
    if spec.train_limit:
        check_train_limit(spec.train_limit, count)
        count = spec.train_limit
    return replace(known, train_images=count, test_images=evaluated)


def make_views(images: Images, device: torch.device, workers: int = 0) -> Views:
    """Return the views of a data set's training images on a device.

    Args:
        images: the data set.
        device: the training's device.
        workers: processes that decode photos for each training; 0 decodes in the training process.
    """
    if isinstance(images.train_images, PhotoFiles):
        return PhotoViews(images, device, workers)
    return PixelViews(images, device)


def strong_policy(recipe: Recipe) -> Policy | None:
    """Return the strong augmentation of a recipe's views; ``None`` if there is none."""
    if recipe.augmentation == "randaugment":
        return randaugment(recipe.randaugment_operations, recipe.randaugment_magnitude)
    return TRIVIALAUGMENT if recipe.augmentation == "trivialaugment" else None


def training_views(views: Views, recipe: Recipe) -> Views:
    """Return the views of one training by a recipe, given those that `make_views` returned."""
    policy = strong_policy(recipe)
    return views.for_training() if policy is None else _augmented(views, policy, TRAINING_VIEWS)


def strong_views(views: Views) -> Views:
    """Return the second, strong view of every image, for losses that need one.

    Its crop and flip are drawn independently of the first view's.
    """
    return _augmented(views, STRONG_VIEW, STRONG_VIEWS)


def _augmented(views: Views, policy: Policy, stream: str) -> Views:
    if isinstance(views, PhotoViews):
        return views.augmented(policy, stream)
    return AugmentedViews(views, policy, stream)


def make_test_images(images: Images, device: torch.device, workers: int = 0) -> TestImages:
    """Return a data set's test images for evaluation; arguments as in `make_views`."""
    if isinstance(images.test_images, PhotoFiles):
        return TestPhotos(images, device, workers)
    return TestPixels(images, device)


def load_evaluation_pixels(images: Images, indices: Tensor) -> Tensor:
    """Return some test images as an evaluation sees them, (P, 3, S, S) uint8."""
    selected = replace(images, test_images=images.test_images[indices])
    test_images = make_test_images(selected, torch.device("cpu"))
    return torch.cat([*test_images.batches(0, len(indices))])


def check_dataset(name: str) -> None:
    """Check that a data set's module can be used, without looking for its files.

    Raises:
        BrokenFileError, UnknownNameError: as `load_dataset`.
    """
    if name != FOLDER_DATASET:
        _module(name)


def _module(name: str) -> ModuleType:
    if name not in dataset_names():
        raise UnknownNameError("data set", name, dataset_names())
    module = load_module(f"{__name__}.{name}")
    if missing := [name for name in ("FACTS", "load") if not hasattr(module, name)]:
        raise BrokenFileError(
            f"{module_file(module.__name__)}: does not define {' and '.join(missing)}"
        )
    return module
