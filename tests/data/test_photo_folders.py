"""Photos in folders are found, counted, indexed and decoded; errors name what is wrong."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.datasets import ImageFolder

from skd.common.frozen import canonical, digest
from skd.data import dataset_facts, imagenet
from skd.data.images import DataError, stratified_order
from skd.data.photos.decoding import decode_photo, jpeg_decoder
from skd.data.photos.files import PhotoFiles
from skd.data.photos.folders import load_folder
from skd.expansion.expand import expand_sheet
from skd.planning.views_choice import ViewsConfig, plan_views
from skd.store.store import Store
from skd.study.sheet import Sheet
from skd.study.spec import DatasetSpec, FolderSpec
from skd.training.execution import choose_execution
from skd.training.stored_views import TeacherViewsError, make_teacher_views
from tests.builders import photos, planned_studies
from tests.builders.photos import dataset, load_photos, make_folder, picture, real_photos

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKD_DATA", str(tmp_path))
    return make_folder(tmp_path / "few")


def amiss(data: dict) -> str:
    with pytest.raises(DataError) as caught:
        load_photos(data)
    return str(caught.value)


@pytest.fixture(params=["torchvision", "PIL"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Decode with one of the libraries: the others cannot be imported."""
    if request.param == "PIL":
        monkeypatch.setitem(sys.modules, "torchvision.io", None)
    jpeg_decoder.cache_clear()
    assert (jpeg_decoder() is None) == (request.param == "PIL")
    yield request.param
    jpeg_decoder.cache_clear()


# The folders.


def test_photos_are_found_in_torchvisions_order(folder: Path):
    # Its rules for file endings and subfolders too.
    shutil.copytree(folder / "train" / "n0001", folder / "train" / "n0002" / "deeper")
    (folder / "train" / "n0000" / "notes.txt").write_text("no photo")
    picture(1).save(folder / "train" / "n0000" / "z.PNG")
    images = load_photos(dataset("few", train=17))
    for files, labels, part in (
        (images.train_images, images.train_labels, "train"),
        (images.test_images, images.test_labels, "val"),
    ):
        known = ImageFolder(folder / part)
        assert [str(files.path(place)) for place in range(len(files))] == [
            path for path, _ in known.samples
        ]
        assert labels.tolist() == known.targets
        assert labels.dtype == torch.int64
        assert images.classes == tuple(known.classes)
        assert files.size == photos.SIZE
    assert images.mean == (0.485, 0.456, 0.406)
    assert images.std == (0.229, 0.224, 0.225)


def test_facts_are_those_of_the_loaded_photos_and_views_are_endless(folder: Path):
    for more in ({}, {"split": "validation"}, {"train_limit": 5}):
        spec = DatasetSpec.model_validate(dataset("few") | more)
        known, images = dataset_facts(spec), load_photos(dataset("few"), **more)
        assert known.num_classes == images.num_classes == 3
        assert known.train_images == len(images.train_images) == len(images.train_labels)
        assert known.test_images == len(images.test_images) == len(images.test_labels)
        assert known.views == 0


def test_split_and_limit_index_the_files(folder: Path):
    whole, split = (
        load_photos(dataset("few")),
        load_photos(dataset("few"), split="validation"),
    )
    order = stratified_order(whole.train_labels, "validation split")
    held_out = order[:1].tolist()
    assert split.test_images.path(0) == whole.train_images.path(held_out[0])
    training = [place for place in range(12) if place not in held_out]
    assert split.train_images.paths.tolist() == whole.train_images.paths[training].tolist()
    limited = load_photos(dataset("few"), train_limit=6)
    assert torch.bincount(limited.train_labels).tolist() == [2, 2, 2]
    names = {path.split(b"/")[1] for path in limited.train_images.paths.tolist()}
    assert names == {b"n0000", b"n0001", b"n0002"}
    with pytest.raises(DataError, match=r"13 .* 12"):
        load_photos(dataset("few"), train_limit=13)


def test_files_are_indexed_as_a_tensor_is():
    files = PhotoFiles(Path("root"), np.array([b"a", b"bb", "ä".encode()]), 32)
    assert len(files) == 3
    chosen = files[torch.tensor([2, 0])]
    assert [chosen.path(place) for place in range(2)] == [Path("root/ä"), Path("root/a")]
    assert len(files[np.array([True, False, True])]) == 2
    assert files[:0].paths.shape == (0,)


def test_a_missing_folder_says_where_it_belongs(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SKD_DATA", str(tmp_path / "nowhere"))
    message = amiss({"name": "imagenet", "folder": None})
    for words in (str(tmp_path / "nowhere" / "imagenet" / "train"), "does not exist", "SKD_DATA"):
        assert words in message
    assert str(tmp_path / "nowhere" / "few" / "train") in amiss(dataset("few"))


def test_other_classes_are_reported(folder: Path, monkeypatch):
    assert re.search(r"few/train has 3 class folders, expected 4", amiss(dataset("few", classes=4)))
    monkeypatch.setattr("skd.data.imagenet.FACTS", imagenet.FACTS)
    folder.rename(folder.parent / "imagenet")
    message = amiss({"name": "imagenet"})
    assert "imagenet/train has 3 class folders, expected 1000" in message
    assert "docs/data.md" in message
    (folder.parent / "imagenet").rename(folder)
    (folder / "val" / "n0002").rename(folder / "val" / "n0009")
    assert "val lacks n0002 and train lacks n0009" in amiss(dataset("few"))


def test_other_counts_are_reported(folder: Path):
    assert "train has 12 photos, expected 1,281" in amiss(dataset("few", train=1281))
    assert "val has 6 photos, expected 7" in amiss(dataset("few", val=7))
    (folder / "train" / "n0001" / "0.JPEG").unlink()
    assert "train has 11 photos, expected 12 (fewest in n0001: 3" in amiss(dataset("few"))
    for file in (folder / "val" / "n0000").iterdir():
        file.unlink()
    assert "few/val has no photo in n0000" in amiss(dataset("few"))


def test_the_usual_traps_are_named(folder: Path):
    for name in ("n0000.tar", "n0001.tar"):
        (folder / "train" / name).write_bytes(b"")
    for label in ("n0000", "n0001", "n0002"):
        shutil.rmtree(folder / "train" / label)
    assert "2 archives such as n0000.tar: unpack each" in amiss(dataset("few"))
    make_folder(folder.parent / "again")
    for label in ("n0000", "n0001", "n0002"):
        shutil.rmtree(folder.parent / "again" / "val" / label)
    assert "val has no class folders; it contains: nothing" in amiss(dataset("again"))
    picture(0).save(folder.parent / "again" / "val" / "ILSVRC2012_val_00000001.JPEG")
    assert "1 photo such as ILSVRC2012_val_00000001.JPEG: sort" in amiss(dataset("again"))


def test_hidden_files_are_neither_classes_nor_photos(folder: Path):
    plain = load_photos(dataset("few"))
    for part in ("train", "val"):
        (folder / part / ".ipynb_checkpoints").mkdir()
        picture(0).save(folder / part / ".ipynb_checkpoints" / "0-checkpoint.JPEG")
        (folder / part / ".DS_Store").write_bytes(b"\0")
        (folder / part / "Thumbs.db").write_bytes(b"\0")
        for label in plain.classes:
            (folder / part / label / "._0.JPEG").write_bytes(b"Mac OS X")
            (folder / part / label / "Thumbs.db").write_bytes(b"\0")
            (folder / part / label / ".cache").mkdir()
            picture(0).save(folder / part / label / ".cache" / "0.JPEG")
    littered = load_photos(dataset("few"))
    assert littered.classes == plain.classes
    for files in ("train_images", "test_images"):
        assert getattr(littered, files).paths.tolist() == getattr(plain, files).paths.tolist()


def test_class_folders_beyond_the_expected_are_named(folder: Path):
    (folder / "train" / "__MACOSX").mkdir()
    assert (
        "few/train has 4 class folders, expected 3: __MACOSX, n0000, n0001, n0002; "
        "only in this folder: __MACOSX; without a photo: __MACOSX." in amiss(dataset("few"))
    )


def test_files_that_are_not_photos_are_named_if_the_count_is_wrong(folder: Path):
    (folder / "train" / "n0001" / "0.JPEG").rename(folder / "train" / "n0001" / "0.heic")
    message = amiss(dataset("few"))
    assert "train has 11 photos, expected 12" in message
    assert "file name extensions: n0001/0.heic (convert them to one of .jpg, .jpeg" in message
    for place in (folder / "val" / "n0002").iterdir():
        place.rename(place.with_suffix(".JPEG.txt"))
    assert "has no photo in n0002; not counted" in amiss(dataset("few"))
    assert "n0002/0.JPEG.txt, n0002/1.JPEG.txt" in amiss(dataset("few"))


def test_imagenets_facts_are_the_official_counts():
    known = dataset_facts(DatasetSpec(name="imagenet"))
    assert (known.num_classes, known.train_images, known.test_images) == (1000, 1_281_167, 50_000)
    assert (known.size, known.views) == (224, 0)
    assert dataset_facts(DatasetSpec(name="imagenet", split="validation")).train_images == 1_153_050


def test_imagenet_is_loaded_from_its_folder(folder: Path, monkeypatch):
    folder.rename(folder.parent / "imagenet")
    small = dataset_facts(DatasetSpec.model_validate(dataset("few")))
    monkeypatch.setattr(imagenet, "FACTS", small)
    assert len(load_photos({"name": "imagenet"}).train_images) == 12


def test_real_photos_are_whole_and_readable(tmp_path: Path):
    known = dataset_facts(DatasetSpec.model_validate(dataset("any", 10, 1000, 300)))
    images = load_folder(real_photos(tmp_path), known, "real", "no advice")
    assert torch.bincount(images.train_labels).tolist() == [100] * 10
    assert torch.bincount(images.test_labels).tolist() == [30] * 10
    for place in range(0, 1000, 20):
        path = images.train_images.path(place)
        photo = decode_photo(path)
        with Image.open(path) as image:
            assert np.array_equal(photo.permute(1, 2, 0).numpy(), image.convert("RGB"))


# The sheet.


def test_only_imagefolder_has_a_folder_and_it_must():
    with pytest.raises(ValidationError, match="imagefolder needs its folder"):
        DatasetSpec(name="imagefolder")
    with pytest.raises(ValidationError, match="only imagefolder has one"):
        DatasetSpec.model_validate(dataset("few") | {"name": "digits"})
    for path in ("/some/where", "../beside", ""):
        with pytest.raises(ValidationError, match="not a folder below SKD_DATA"):
            DatasetSpec.model_validate(dataset(path))
    with pytest.raises(ValidationError, match="unknown key 'klasses'"):
        DatasetSpec.model_validate(dataset("few", klasses=3))


def test_a_spec_without_a_folder_is_what_it_was():
    spec = DatasetSpec(name="cifar100")
    assert canonical(spec) == {"name": "cifar100", "split": "test", "train_limit": None}
    assert DatasetSpec.restore(canonical(spec)) == spec
    written = DatasetSpec.model_validate(dataset("few"))
    assert DatasetSpec.restore(canonical(written)) == written


@pytest.mark.parametrize(
    "change",
    [
        {"path": "others"},
        {"classes": 4},
        {"train_images": 13},
        {"test_images": 7},
        {"size": 64},
    ],
)
def test_every_field_of_a_folder_counts_for_the_identity(change):
    data = dataset("few")
    assert set(FolderSpec.model_fields) == set(data["folder"])
    other = data | {"folder": data["folder"] | change}
    identities = {digest(canonical(DatasetSpec.model_validate(d))) for d in (data, other)}
    assert len(identities) == 2


# Teachers' views of photos.


def test_endless_views_are_never_planned(tmp_path: Path):
    expansion = planned_studies.study()
    cells = [c.model_copy(update={"needs": ("teacher_logits",)}) for c in expansion.cells]
    entries = {node.name: Store(tmp_path).teacher(node.id) for node in expansion.teachers}
    for views, stored in ((1, True), (0, False)):
        images = expansion.images.model_copy(update={"views": views})
        study = expansion.model_copy(update={"images": images, "cells": tuple(cells)})
        assert bool(plan_views(study, entries, ViewsConfig(teacher_views="always"))) == stored


def test_endless_views_are_refused(tmp_path: Path):
    entry = Store(tmp_path).teacher("0" * 16)
    spec = DatasetSpec.model_validate(dataset("few"))
    with pytest.raises(TeacherViewsError, match="the number of views of a photo is unlimited"):
        make_teacher_views(entry, spec, ["logits"], "float16", choose_execution("cpu", 1))


def test_a_sheet_of_photos_expands_without_them():
    sheet = Sheet.model_validate(
        {
            "title": "few photos",
            "dataset": dataset("few"),
            "recipe": {"epochs": 1, "batch_size": 4, "milestones": []},
            "teachers": {"resnet20": {"train": {"seed": 1}}},
            "pairs": [{"teacher": "resnet20", "student": "resnet8x4"}],
            "methods": ["student", "kd"],
            "seeds": [0],
        }
    )
    images = expand_sheet(sheet, study="few").images
    assert (images.train_images, images.test_images, images.size, images.views) == (12, 6, 32, 0)


# Decoding.


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    return jpeg(image, exif=exif)


@pytest.mark.parametrize(
    "write",
    [
        jpeg,
        lambda image: jpeg(image.convert("L")),
        lambda image: jpeg(image.convert("CMYK")),
        lambda image: jpeg(image, progressive=True, subsampling=0),
        png,
        lambda image: png(image.convert("L")),
        lambda image: png(image.convert("P")),
        lambda image: png(image.convert("RGBA")),
        turned,
    ],
    ids=["plain", "grey", "cmyk", "progressive", "png", "grey png", "palette", "alpha", "turned"],
)
def test_all_kinds_of_files_become_pils_rgb(decoder, tmp_path: Path, write: Callable):
    path = tmp_path / "any.JPEG"
    path.write_bytes(write(picture(2)))
    photo = decode_photo(path)
    assert photo.shape == (3, 40, 48)
    assert photo.dtype == torch.uint8
    with Image.open(path) as image:
        assert np.array_equal(photo.permute(1, 2, 0).numpy(), image.convert("RGB"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: b"", "empty"),
        (lambda whole: whole[: len(whole) // 2], "truncated"),
        (lambda whole: whole[:-2], "truncated"),
        (lambda whole: whole[:20], "."),
        (lambda whole: b"<html>not found</html>", "image format is unknown"),
        (lambda whole: png(picture(2))[:400], "."),
        (None, "does not exist"),
    ],
    ids=["empty", "half", "tail", "head", "html", "png", "missing"],
)
def test_a_damaged_file_is_named(decoder, tmp_path: Path, damage: Callable | None, words: str):
    path = tmp_path / "n01" / "photo_7.JPEG"
    path.parent.mkdir()
    if damage:
        path.write_bytes(damage(jpeg(picture(2))))
    with pytest.raises(DataError, match=f"(?is){re.escape(str(path))}.*{words}"):
        decode_photo(path)
