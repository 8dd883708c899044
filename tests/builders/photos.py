"""Folders of small made-up photos in ImageFolder layout, and data sets of them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skd.data import load_dataset
from skd.data.images import Images
from skd.study.spec import DatasetSpec
from tests.builders.paths import ROOT

SIZE = 32


def picture(seed: int, width: int = 48, height: int = 40, mode: str = "RGB") -> Image.Image:
    """Return a smooth picture that depends on the seed."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def make_folder(folder: Path, classes: int = 3, train: int = 4, val: int = 2) -> Path:
    """Write a number of photos for each class into train and val; return the folder."""
    for part, count in (("train", train), ("val", val)):
        for label in range(classes):
            top = folder / part / f"n{label:04d}"
            top.mkdir(parents=True)
            for number in range(count):
                seed = 100 * label + 10 * number + (part == "val")
                picture(seed, 40 + 7 * number, 44 + 5 * label).save(top / f"{number}.JPEG")
    return folder


def dataset(path: str, classes: int = 3, train: int = 12, val: int = 6, **more: object) -> dict:
    """Return the dataset section of a sheet."""
    folder = {
        "path": path,
        "classes": classes,
        "train_images": train,
        "test_images": val,
        "size": SIZE,
    }
    return {"name": "imagefolder", "folder": folder | more}


def load_photos(data: dict, **more: object) -> Images:
    return load_dataset(DatasetSpec.model_validate(data | more))


def real_photos(empty: Path) -> Path:
    """Return the folder of 1,300 real photos in $SKD_DATA or ../shared/data, unpacked."""
    shared = ROOT.parent / "shared" / "data"
    for root in (Path(os.environ.get("SKD_DATA", "data")), shared):
        if (root / "imagenette_mini" / "train").is_dir():
            return root / "imagenette_mini"
        if (root / "imagenette_mini.tar").is_file():
            with tarfile.open(root / "imagenette_mini.tar") as archive:
                # Python 3.11.0 to 3.11.3 have no filters; the archive is the project's own.
                safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                archive.extractall(empty, **safe)
            return empty / "imagenette_mini"
    pytest.skip("no real photos: neither SKD_DATA nor ../shared/data has imagenette_mini")
