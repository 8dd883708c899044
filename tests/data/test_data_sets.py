"""The data sets: their counts and constants, and the fixed, balanced parts of them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import CIFAR100

from skd.common.errors import UnknownNameError
from skd.data import data_root, dataset_names, digits, load_dataset, synthetic
from skd.data.images import (
    DataError,
    Images,
    limit_training_images,
    stratified_order,
    validation_split,
)
from skd.study.spec import DatasetSpec


@pytest.fixture(scope="module")
def cifar(cifar_root: Path) -> Iterator[Images]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKD_DATA", str(cifar_root))
        yield load_dataset(DatasetSpec(name="cifar100"))


def numbered(labels: Tensor, test: int = 3) -> Images:
    """Images whose two pixels are their indices, so that a subset shows which ones it has."""
    places = torch.arange(len(labels))
    pixels = torch.stack([places // 256, places % 256, places * 0], 1).to(torch.uint8)
    pixels = pixels[:, :, None, None]
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return Images(
        pixels, labels, pixels[:test], labels[:test], classes, (0.5,) * 3, (0.5,) * 3, 1, False
    )


def places(pixels: Tensor) -> list[int]:
    return (256 * pixels[:, 0, 0, 0].long() + pixels[:, 1, 0, 0].long()).tolist()


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]


def assert_sound(images: Images, train: int, test: int, classes: int, size: int) -> None:
    for pixels, labels, count in (
        (images.train_images, images.train_labels, train),
        (images.test_images, images.test_labels, test),
    ):
        assert pixels.shape == (count, 3, size, size)
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous()
        assert labels.shape == (count,)
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) == set(range(classes))
    assert images.num_classes == len(set(images.classes)) == classes


# CIFAR-100.


def test_cifar100_is_whole_and_balanced(cifar: Images):
    assert_sound(cifar, 50_000, 10_000, 100, 32)
    assert torch.bincount(cifar.train_labels).tolist() == [500] * 100
    assert torch.bincount(cifar.test_labels).tolist() == [100] * 100
    assert cifar.mean == (0.5071, 0.4867, 0.4408)
    assert cifar.std == (0.2675, 0.2565, 0.2761)
    assert (cifar.pad, cifar.flip) == (4, True)


def test_cifar100_constants_are_about_the_training_images(cifar: Images):
    sample = cifar.train_images[::10].double() / 255
    assert sample.mean((0, 2, 3)).tolist() == pytest.approx(cifar.mean, abs=0.005)
    assert sample.std((0, 2, 3)).tolist() == pytest.approx(cifar.std, abs=0.005)


def test_cifar100_is_the_official_files_in_their_order(cifar: Images, cifar_root: Path):
    folder = cifar_root / "cifar-100-python"
    test = pickle.loads((folder / "test").read_bytes(), encoding="latin1")
    meta = pickle.loads((folder / "meta").read_bytes(), encoding="latin1")
    assert np.array_equal(cifar.test_images.flatten(1).numpy(), test["data"])
    assert cifar.test_labels.tolist() == test["fine_labels"]
    assert list(cifar.classes) == meta["fine_label_names"]


def test_cifar100_validation_split_is_the_fields_and_fixed(cifar: Images):
    split = validation_split(cifar)
    assert_sound(split, 45_000, 5_000, 100, 32)
    assert torch.bincount(split.train_labels).tolist() == [450] * 100
    assert torch.bincount(split.test_labels).tolist() == [50] * 100
    # Stored runs depend on it: another digest means other images.
    assert digest(split.test_labels) == "d33d84d07a59e985"
    assert digest(split.test_images) == "70e89c1e86434846"


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("no hash match")])
def test_missing_cifar100_says_where_it_belongs(monkeypatch, tmp_path: Path, error: Exception):
    def refuse(self: CIFAR100) -> None:
        raise error

    monkeypatch.setattr(CIFAR100, "download", refuse)
    monkeypatch.setenv("SKD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as caught:
        load_dataset(DatasetSpec(name="cifar100"))
    for words in (str(tmp_path / "nowhere" / "cifar-100-python"), "SKD_DATA", str(error)):
        assert words in str(caught.value)


# Parts of a data set.


def test_the_split_is_pinned_by_a_small_case():
    order = stratified_order(torch.arange(1000) % 10, "validation split")
    assert order[:12].tolist() == [633, 329, 222, 295, 951, 478, 750, 534, 536, 667, 559, 138]
    assert digest(order) == "ffdb9dabea93d08a"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80))
def test_every_prefix_of_the_stratified_order_is_balanced(written: list[int]):
    labels = torch.tensor(written)
    order = stratified_order(labels, "any").tolist()
    assert sorted(order) == list(range(len(written)))
    whole = {label: written.count(label) for label in set(written)}
    for end in range(1, len(order) + 1):
        part = [written[i] for i in order[:end]]
        counts = {label: part.count(label) for label in whole}
        # a class has over one image less than another only if all its images are used
        most = max(counts.values())
        assert all(n >= most - 1 or n == whole[label] for label, n in counts.items())


def test_the_order_depends_on_its_purpose():
    labels = torch.arange(200) % 4
    first = stratified_order(labels, "validation split")
    assert torch.equal(first, stratified_order(labels, "validation split"))
    assert not torch.equal(first, stratified_order(labels, "training limit"))


def test_validation_split_parts_the_training_images_and_drops_the_test_images():
    labels = torch.arange(600) % 6
    images = numbered(labels)
    split = validation_split(images)
    train, held_out = places(split.train_images), places(split.test_images)
    assert len(held_out) == 60
    assert sorted(train + held_out) == list(range(600))
    for subset, part in ((train, split.train_labels), (held_out, split.test_labels)):
        assert subset == sorted(subset)
        assert torch.equal(part, labels[subset])
    assert torch.bincount(split.test_labels).tolist() == [10] * 6
    assert (split.pad, split.flip, split.mean) == (1, False, images.mean)


@pytest.mark.parametrize("count", [1, 60, 63, 599, 600])
def test_limit_is_balanced_and_nested(count: int):
    labels = torch.arange(600) % 6
    images = numbered(labels)
    limited = limit_training_images(images, count)
    kept = places(limited.train_images)
    assert len(set(kept)) == count
    assert torch.equal(limited.train_labels, labels[kept])
    counts = torch.bincount(limited.train_labels, minlength=6)
    assert counts.max() - counts.min() <= 1
    assert set(places(limit_training_images(images, max(1, count // 2)).train_images)) <= set(kept)
    assert torch.equal(limited.test_images, images.test_images)


def test_limit_is_pinned_by_a_small_case():
    limited = limit_training_images(numbered(torch.arange(600) % 6), 8)
    assert places(limited.train_images) == [93, 125, 272, 276, 292, 472, 547, 548]


def test_limit_beyond_the_images_is_refused():
    with pytest.raises(DataError, match=r"601 .* 600"):
        limit_training_images(numbered(torch.arange(600) % 6), 601)


def test_a_spec_takes_its_limit_from_what_the_split_left():
    whole = load_dataset(DatasetSpec(name="digits", split="validation"))
    assert (len(whole.train_labels), len(whole.test_labels)) == (900, 100)
    part = load_dataset(DatasetSpec(name="digits", split="validation", train_limit=100))
    assert torch.equal(part.test_images, whole.test_images)
    rows = {image.numpy().tobytes() for image in whole.train_images}
    assert all(image.numpy().tobytes() in rows for image in part.train_images)
    assert torch.bincount(part.train_labels).tolist() == [10] * 10
    with pytest.raises(DataError, match="901"):
        load_dataset(DatasetSpec(name="digits", split="validation", train_limit=901))


# The sets without files.


def test_digits_are_all_of_scikit_learns_parted_in_two():
    images = digits.load(Path())
    assert_sound(images, 1000, 797, 10, 16)
    assert (images.pad, images.flip) == (2, False)
    assert images.train_labels[:10].tolist() == [8, 4, 7, 6, 5, 2, 0, 1, 9, 3]  # pinned
    source = load_digits()
    # Twice the size, bilinear: each new pixel is 1/4 from one pixel and 3/4 from the next.
    wide = source.images
    for axis in (1, 2):
        ends = [(1, 1) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(wide, ends, mode="edge")
        before, after = (np.take(padded, np.arange(8) + step, axis) for step in (0, 2))
        halves = [0.75 * wide + 0.25 * side for side in (before, after)]
        shape = [2 * n if a == axis else n for a, n in enumerate(wide.shape)]
        wide = np.stack(halves, axis + 1).reshape(shape)
    expected = np.round(wide / 16 * 255).astype(np.uint8)
    known = sorted((x.tobytes(), y) for x, y in zip(expected, source.target.tolist(), strict=True))
    pixels = torch.cat([images.train_images, images.test_images])
    labels = torch.cat([images.train_labels, images.test_labels]).tolist()
    assert torch.equal(pixels, pixels[:, :1].expand_as(pixels))
    grey = pixels[:, 0].contiguous().numpy()
    assert sorted((x.tobytes(), y) for x, y in zip(grey, labels, strict=True)) == known


def test_digits_split_is_balanced_and_its_constants_are_its_own():
    images = digits.load(Path())
    counts = torch.bincount(images.train_labels)
    assert counts.max() - counts.min() <= 1
    scaled = images.train_images.double() / 255
    assert scaled.mean().item() == pytest.approx(images.mean[0], abs=0.005)
    assert scaled.std().item() == pytest.approx(images.std[0], abs=0.005)


def test_synthetic_is_the_same_every_time():
    torch.manual_seed(1)
    np.random.seed(1)
    first = synthetic.load(Path())
    torch.manual_seed(2)
    np.random.seed(2)
    second = load_dataset(DatasetSpec(name="synthetic"))
    assert_sound(first, 272, 100, 10, 32)
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(first, part), getattr(second, part))
    assert digest(first.train_images) == "9b94c2d8c210e3ec"
    assert not torch.equal(first.train_images[:100], first.test_images)


def test_unknown_data_set_is_reported_with_the_known_ones():
    assert {"cifar100", "digits", "synthetic"} <= set(dataset_names())
    assert not {"images", "views"} & set(dataset_names())
    for name in ("cifar10", "views", "nothing"):
        with pytest.raises(UnknownNameError) as caught:
            load_dataset(DatasetSpec(name=name))
        assert all(known in str(caught.value) for known in (name, *dataset_names()))


def test_data_root_is_the_environments_or_data(monkeypatch):
    monkeypatch.setenv("SKD_DATA", "/some/where")
    assert data_root() == Path("/some/where")
    monkeypatch.delenv("SKD_DATA")
    assert data_root() == Path("data")
