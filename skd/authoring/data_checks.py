"""Checks of a data set: its facts, its values, its views. `skd check-data` runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from skd.authoring.check_results import Check, CheckResult, require, run_checks
from skd.data import dataset_facts, load_dataset, make_views
from skd.data.images import CHANNELS, DataError, DatasetFacts, Images
from skd.data.photos.files import PhotoFiles
from skd.data.views import Views
from skd.study.spec import FOLDER_DATASET, DatasetSpec

# Between the stated and the measured mean and deviation: another data set's values are common, but
# values of the wrong scale are a mistake.
STATISTICS_TOLERANCE, NOTED_DIFFERENCE = 0.1, 0.02
ALLOWED_SHARED = 0.01  # share of test images; CIFAR-100 has a few in both parts
VIEW_BATCH = 16


def check_data_contract(name: str) -> Iterator[CheckResult]:
    """Yield the results of all checks of a data set.

    Args:
        name: a data set of `dataset_names`, without a folder of its own in the sheet.

    Raises:
        SkdError: the data set does not exist, or its files are missing; says what to do.
    """
    if name == FOLDER_DATASET:
        raise DataError(
            f"{name} is what a sheet's dataset.folder describes: skd expand and the training check "
            "it; check-data checks the other data sets and files"
        )
    yield from run_checks(DataChecks(DatasetSpec(name=name)).checks())


class DataChecks:
    """The checks of one data set, which is loaded once. Each returns a note or fails.

    Args:
        spec: the data set.

    Raises:
        SkdError: the data set does not exist, or its files are missing.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.facts: DatasetFacts = dataset_facts(spec)
        self.images: Images = load_dataset(spec)

    def checks(self) -> dict[str, Check]:
        """Return the checks by name, in the order in which a user repairs them."""
        return {
            "images": self.images_have_their_type,
            "labels": self.labels_are_classes,
            "FACTS": self.facts_agree,
            "classes": self.classes_are_balanced,
            "mean and std": self.statistics_agree,
            "loads again": self.loads_the_same,
            "views": self.views_are_pure,
            "test images are new": self.parts_are_distinct,
            "validation split": self.validation_split_works,
        }

    @property
    def is_photos(self) -> bool:
        """Whether the images are files."""
        return isinstance(self.images.train_images, PhotoFiles)

    @cached_property
    def parts(self) -> dict[str, tuple[Tensor | PhotoFiles, Tensor]]:
        """Images and labels by part."""
        data = self.images
        return {
            "train": (data.train_images, data.train_labels),
            "test": (data.test_images, data.test_labels),
        }

    def images_have_their_type(self) -> str:
        """Check type, shape and range of the pixels."""
        if self.is_photos:
            return "photos, which are decoded when they are needed"
        for part, (images, _) in self.parts.items():
            what = f"{part}_images"
            require(images.dtype == torch.uint8, f"{what} must be uint8, not {images.dtype}")
            shape = tuple(images.shape)
            require(
                len(shape) == 4 and shape[1] == CHANNELS and shape[2] == shape[3],
                f"{what} must be (N, {CHANNELS}, S, S), not {shape}",
            )
            require(int(images.max()) > 1, f"{what} are 0 or 1: scale the pixels to 0…255")
        return ""

    def labels_are_classes(self) -> None:
        """Check type and range of the labels, and that every class has images."""
        for part, (images, labels) in self.parts.items():
            what = f"{part}_labels"
            require(labels.dtype == torch.int64, f"{what} must be int64, not {labels.dtype}")
            numbers = len(labels), len(images)
            require(numbers[0] == numbers[1], f"{numbers[0]} {what} for {numbers[1]} images")
            low, high = int(labels.min()), int(labels.max())
            last = self.images.num_classes - 1
            require(
                low >= 0 and high <= last, f"{what} must be 0 to {last}, but are {low} to {high}"
            )
            empty = [
                self.images.classes[index]
                for index, count in enumerate(self._counts(labels))
                if not count
            ]
            require(not empty, f"{what}: no image of class {', '.join(empty[:5])}")

    def facts_agree(self) -> None:
        """Check that FACTS is what `load` returns."""
        data = self.images
        size = self.facts.size if self.is_photos else data.train_images.shape[-1]
        loaded = {
            "num_classes": data.num_classes,
            "train_images": len(data.train_labels),
            "test_images": len(data.test_labels),
            "size": size,
            "photos": self.is_photos,
        }
        if not self.is_photos:
            loaded |= {"pad": data.pad, "flip": data.flip}
        wrong = [
            f"{key} is {getattr(self.facts, key)}, but load gives {value}"
            for key, value in loaded.items()
            if getattr(self.facts, key) != value
        ]
        require(not wrong, f"FACTS: {'; '.join(wrong)}")

    def classes_are_balanced(self) -> str:
        """Note the classes' numbers of images and the chance level."""
        test = self._counts(self.images.test_labels)
        train = self._counts(self.images.train_labels)
        chance, largest = 100 / self.images.num_classes, 100 * max(test) / sum(test)
        note = (
            f"{min(train)} to {max(train)} training and {min(test)} to {max(test)} test images a "
            f"class; chance level {chance:.2f} %"
        )
        if max(test) > 1.5 * min(test):
            note += f"; always naming the largest class gives {largest:.2f} %"
        return note

    def statistics_agree(self) -> str:
        """Check mean and std against those of the training images."""
        require(all(std > 0 for std in self.images.std), f"std must be above 0: {self.images.std}")
        if self.is_photos:
            return "not measured: photos"
        count = self.images.train_images.numel() // CHANNELS
        mean, std = torch.zeros(CHANNELS).double(), torch.zeros(CHANNELS).double()
        for pixels in self.images.train_images.split(5000):
            values = pixels.double() / 255
            mean += values.sum((0, 2, 3)) / count
            std += values.square().sum((0, 2, 3)) / count
        std = (std - mean.square()).sqrt()
        notes = []
        for what, stated, measured in (
            ("mean", self.images.mean, mean.tolist()),
            ("std", self.images.std, std.tolist()),
        ):
            difference = max(abs(a - b) for a, b in zip(stated, measured, strict=True))
            text = f"{what} is {_numbers(stated)}, the training images' is {_numbers(measured)}"
            require(difference <= STATISTICS_TOLERANCE, text)
            notes += [text] * (difference > NOTED_DIFFERENCE)
        return "; ".join(notes)

    def loads_the_same(self) -> None:
        """Check that a second `load` gives the same images in the same order."""
        again = load_dataset(self.spec)
        for part in ("train", "test"):
            require(
                torch.equal(getattr(again, f"{part}_labels"), self.parts[part][1]),
                f"a second load gives other {part}_labels: runs would not repeat",
            )
            if not self.is_photos:
                require(
                    torch.equal(getattr(again, f"{part}_images"), self.parts[part][0]),
                    f"a second load gives other {part}_images: runs would not repeat",
                )

    def views_are_pure(self) -> str:
        """Check that a view depends on seed, epoch and image only."""
        views = make_views(self.images, torch.device("cpu"))
        try:
            first, again, later = (views.draw_epoch(0, epoch) for epoch in (1, 1, 2))
            require(torch.equal(first, again), "an epoch's views differ when drawn again")
            if views.views_per_image != 1:
                require(not torch.equal(first, later), "all epochs have the same views")
            count = min(VIEW_BATCH, len(first))
            indices = torch.arange(count)
            batch = self._views_of(views, indices, first)
            backwards = self._views_of(views, indices.flip(0), first)
            require(torch.equal(backwards.flip(0), batch), "a view depends on the batch")
            require(bool(batch.isfinite().all()), "the normalised views are not finite")
        finally:
            views.close()
        number = views.views_per_image
        return f"{number} views of an image" if number else "unlimited views of an image"

    def _views_of(self, views: Views, indices: Tensor, numbers: Tensor) -> Tensor:
        batch = (indices, numbers[indices])
        views.schedule_batches([batch], largest=len(indices))
        views.load_next_batch()
        return views.batch(*batch)

    def parts_are_distinct(self) -> str:
        """Check that few test images are also training images."""
        if self.is_photos:
            return "not compared: photos"
        train = {_digest(image) for image in self.images.train_images}
        shared = sum(_digest(image) in train for image in self.images.test_images)
        count = len(self.images.test_labels)
        text = f"{shared} of {count} test images are also training images"
        require(shared <= ALLOWED_SHARED * count, f"{text}: leave them out of one part")
        return text if shared else ""

    def validation_split_works(self) -> None:
        """Check that the validation split has images of every class."""
        split = load_dataset(self.spec.model_copy(update={"split": "validation"}))
        for part, labels in (("training", split.train_labels), ("validation", split.test_labels)):
            counts = self._counts(labels)
            require(
                min(counts) > 0,
                f"split: validation leaves a class without {part} images: a class needs at least "
                "10 training images",
            )

    def _counts(self, labels: Tensor) -> list[int]:
        return torch.bincount(labels, minlength=self.images.num_classes).tolist()


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
