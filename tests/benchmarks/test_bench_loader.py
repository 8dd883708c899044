"""`skd bench-loader`: both sides on the same photos, measured in turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.loader_results import LoaderComparison, LoaderRow, loader_notes, loader_table
from benchmarks.results import BenchError, SpeedUp
from benchmarks.sides.photo_loaders import (
    CROP_SIZE,
    PhotoRounds,
    measure_throughput,
    skd_loader,
    torchvision_loader,
)
from tests.builders.photos import make_folder

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("bench")) / "train"


@pytest.mark.parametrize("side", [skd_loader, torchvision_loader])
def test_a_side_gives_a_rounds_photos_normalised(folder: Path, side):
    photos = PhotoRounds(folder, 4, 10)
    assert photos.images == 8
    first, second = side(photos, CPU, 0)(1)
    for batch in (first, second):
        assert batch.shape == (4, 3, CROP_SIZE, CROP_SIZE)
        assert batch.dtype == torch.float32
        assert -2.2 < batch.min() < 0 < batch.max() < 2.7
    assert measure_throughput(side(photos, CPU, 0), 2, photos, CPU) > 0


def test_neither_side_reads_hidden_files(tmp_path: Path):
    top = make_folder(tmp_path / "few") / "train"
    (top / ".ipynb_checkpoints").mkdir()
    (top / "n0000" / "._0.JPEG").write_bytes(b"Mac OS X")
    photos = PhotoRounds(top, 4, 12)
    assert len(photos.paths) == 12
    for side in (skd_loader, torchvision_loader):
        assert sum(len(batch) for batch in side(photos, CPU, 0)(1)) == 12


def test_rounds_see_other_photos_and_both_sides_the_same(folder: Path, monkeypatch):
    photos = PhotoRounds(folder, 4, 12)
    one, other = torch.cat(photos.batches(1)), torch.cat(photos.batches(2))
    assert sorted(one.tolist()) == sorted(other.tolist()) == list(range(12))
    assert not torch.equal(one, other)
    folders: list[Path] = []
    from skd.data.photos import loader

    decode = loader.decode_photo
    monkeypatch.setattr(loader, "decode_photo", lambda path: folders.append(path) or decode(path))
    list(skd_loader(photos, CPU, 0)(1))
    assert folders == [photos.paths[place] for place in one.tolist()]


def test_a_side_that_gives_too_few_is_refused(folder: Path):
    photos = PhotoRounds(folder, 4, 12)
    with pytest.raises(BenchError, match="8 photos of 12"):
        measure_throughput(lambda number: iter([torch.zeros(8)]), 1, photos, CPU)


def test_unusable_folders_are_reported(folder: Path, tmp_path: Path):
    with pytest.raises(BenchError, match="12 photos, but a batch has 64"):
        PhotoRounds(folder, 64, 1024)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BenchError, match="no photos in folders by class"):
            PhotoRounds(path, 4, 8)


def test_the_command_prints_and_writes_what_it_measured(folder: Path, tmp_path: Path, skd):
    where = tmp_path / "out.json"
    options = ("--workers", 0, "--rounds", 2, "--batch", 3, "--images", 6, "--output", where)
    status, out, _ = skd("bench-loader", "--folder", folder, "--device", "cpu", *options)
    assert status == 0
    comparison = LoaderComparison.model_validate(json.loads(where.read_text()))
    assert [row.side for row in comparison.rows] == ["skd", "torchvision"]
    assert all(len(row.rounds) == 2 for row in comparison.rows)
    assert (comparison.photos, comparison.images, comparison.workers, comparison.folder) == (
        12,
        6,
        0,
        "train",
    )
    pairs = zip(*(row.rounds for row in comparison.rows), strict=True)
    first, second = sorted(mine / theirs for mine, theirs in pairs)
    assert comparison.times.value == pytest.approx((first + second) / 2)
    for words in (f"{comparison.rows[0].median:,.0f}", f"{comparison.times.value:.2f}", str(where)):
        assert words in out


def test_the_table_has_medians_ranges_and_the_interval():
    comparison = LoaderComparison(
        made_at="2026-01-01T00:00:00+00:00",
        environment={"cpu_count": 2},
        device="cpu",
        device_name="any",
        folder="train",
        photos=1000,
        mean_bytes=44_000,
        median_size=(500, 375),
        batch_size=64,
        images=640,
        workers=2,
        rows=(
            LoaderRow(side="skd", rounds=(1000.0, 3000.0, 2000.0)),
            LoaderRow(side="torchvision", rounds=(700.0, 900.0, 800.0)),
        ),
        times=SpeedUp(value=2.5, low=1.25, high=3.0),
    )
    columns = [list(column.cells) for column in loader_table(comparison).columns]
    assert columns == [
        ["skd", "torchvision"],
        ["2,000", "800"],
        ["1,000 to 3,000", "700 to 900"],
        ["2.50 [1.25, 3.00]", "1"],
    ]
    assert "median 500 x 375 pixels, 44 kB a file" in loader_notes(comparison)[1]
