"""Tables of tuned kernels: their names, their look-up, and messages for broken ones."""

import errno
import os
from pathlib import Path

import pytest

from skd.kernels import tables
from skd.kernels.tables import (
    BlockSizes,
    ConvBlocks,
    KernelsError,
    find_table,
    load_table,
)
from skd.kernels.tuning import require_writable, write_table
from tests.builders.kernels import SHAPE, entry, needs_triton, read_all, table

# Tables.


def test_a_name_is_of_the_choices_not_of_the_times() -> None:
    first, second = entry(), entry(direction="weight_gradient")
    name = table(first, second).name
    assert name.startswith("nvidia-h200-")
    assert len(name) == len("nvidia-h200-") + 8
    assert table(second, first, torch="3").name == name
    assert table(entry(microseconds=8.7), entry(direction="weight_gradient")).name == name
    for other in (
        entry(blocks=BlockSizes(pixels=64, patch=32, warps=8)),
        entry(blocks=BlockSizes(pixels=32, patch=32)),
        entry(microseconds=8.9),
        entry(dtype="bfloat16"),
    ):
        assert table(other, second).name != name
    # Convolutions computed by cuDNN have no block sizes.
    slower = {"microseconds": 10.0}
    changed = entry(**slower, blocks=BlockSizes(pixels=256, patch=16))
    assert table(second, entry(**slower)).name == table(second, changed).name


def test_a_name_is_of_the_kernels_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table(entry()).name
    monkeypatch.setattr(tables, "VERSION", tables.VERSION + 1)
    assert table(entry()).name != before


def test_ours_is_used_only_where_it_was_measured_faster_by_the_margin() -> None:
    assert entry(microseconds=96.9, cudnn_microseconds=100.0).is_faster
    assert not entry(microseconds=97.0, cudnn_microseconds=100.0).is_faster
    blocks = BlockSizes(pixels=32, patch=64, chunks=8, warps=8, stages=3)
    tuned = table(
        entry(),
        entry(direction="input_gradient", microseconds=9.0),
        entry(direction="weight_gradient", blocks=blocks),
        entry(dtype="bfloat16", microseconds=10.0),
        entry(shape=SHAPE.model_copy(update={"in_channels": 3})),
    ).blocks_by_input(16, 32, 2)
    assert tuned == {("float32", 64, 9, 7): ConvBlocks((64, 32, 1, 4, 1), (), (32, 64, 8, 8, 3))}


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixels": 8},
        {"patch": 48},
        {"pixels": 0},
        {"patch": -16},
        {"chunks": 0},
        {"chunks": tables.MAX_CHUNKS + 1},
        {"warps": 0},
        {"stages": 0},
    ],
    ids=str,
)
def test_blocks_that_no_kernel_has(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BlockSizes(**{"pixels": 16, "patch": 16} | wrong)


def test_blocks_as_ints_and_back() -> None:
    blocks = BlockSizes(pixels=32, patch=64, chunks=8, warps=2, stages=3)
    assert blocks.as_ints() == (32, 64, 8, 2, 3)
    assert BlockSizes.from_ints(blocks.as_ints()) == blocks
    with pytest.raises(ValueError, match="five block sizes"):
        BlockSizes.from_ints([32, 64])


def test_a_table_is_found_by_gpu_and_by_name(tmp_path: Path) -> None:
    stored = table(entry(), entry(direction="weight_gradient"))
    assert find_table(stored.gpu, tmp_path) is None
    path = write_table(stored, tmp_path / "new")
    assert path.name == "nvidia-h200.yaml"
    if tables.has_triton():
        assert find_table("NVIDIA H200", path.parent) == stored
        assert load_table(stored.name, path.parent) == stored
    assert find_table("NVIDIA H100 80GB HBM3", path.parent) is None


@needs_triton
def test_an_unknown_name_is_reported(tmp_path: Path) -> None:
    write_table(table(entry()), tmp_path)
    with pytest.raises(KernelsError) as refused:
        load_table("nvidia-h200-00000000", tmp_path)
    message = str(refused.value)
    assert "'nvidia-h200-00000000'" in message
    assert table(entry()).name in message
    assert "remove the run's folder" in message
    with pytest.raises(KernelsError, match="available: none"):
        load_table("nvidia-h200-00000000", tmp_path / "none")


@needs_triton
def test_a_broken_table_is_reported(tmp_path: Path) -> None:
    (tmp_path / "nvidia-h200.yaml").write_text("gpu: NVIDIA H200\n")
    with pytest.raises(KernelsError, match="write a new one by skd tune-kernels"):
        find_table("NVIDIA H200", tmp_path)


def test_without_triton_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = table(entry())
    write_table(stored, tmp_path)
    monkeypatch.setattr(tables, "has_triton", lambda: False)
    assert find_table(stored.gpu, tmp_path) is None
    with pytest.raises(KernelsError, match="need triton"):
        load_table(stored.name, tmp_path)


def test_every_shipped_table_can_be_read(tmp_path: Path) -> None:
    """There may be no shipped table, so the check is tried with valid and broken tables."""
    read_all(tables.FOLDER)
    example = table(entry(), entry(direction="weight_gradient"))
    path = write_table(example, tmp_path)
    assert read_all(tmp_path) == [example]
    misnamed = path.rename(tmp_path / "nvidia-h100.yaml")
    with pytest.raises(AssertionError):
        read_all(tmp_path)
    misnamed.unlink()
    path.write_text("gpu: NVIDIA H200\n")
    with pytest.raises(KernelsError):
        read_all(tmp_path)


def test_a_table_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "tables"):
        for write in (require_writable, lambda folder: write_table(table(entry()), folder)):
            with pytest.raises(KernelsError, match=f"to {folder} .*--output"):
                write(folder)
    old = write_table(table(entry()), tmp_path)
    require_writable(tmp_path)
    before = old.read_text()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KernelsError, match=r"No space left.*--output"):
        write_table(table(entry(microseconds=1.0)), tmp_path)
    assert old.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"file", old.name}
