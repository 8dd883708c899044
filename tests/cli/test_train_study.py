"""`skd train STUDY`: one process completes a study within its time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skd.common import stopping
from skd.store.records import Record
from skd.store.store import Store
from skd.study.expansion_files import load_expansion
from skd.training.study_training import order_runs
from tests.builders import tiny
from tests.builders.commands import Skd

SHEET = """
title: small
dataset: {name: digits, train_limit: 80}
recipe: {epochs: 2, milestones: []}
teachers:
  good: {network: resnet8, train: {seed: 7}}
  missing: {network: resnet8, import: {file: nowhere.pth, sha256: 0123456789abcdef}}
pairs:
  - {teacher: good, student: resnet8}
  - {teacher: good, student: resnet14, without: [kd]}
methods: [student, kd, skd]
seeds: 2
"""
BOTH = SHEET.replace("without: [kd]}", "without: [kd]}\n  - {teacher: missing, student: resnet14}")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the sheet `small`."""
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "small.yaml").write_text(SHEET)
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path / "sheets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(folder: Path) -> dict[tuple[str, int], Record | None]:
    expansion = load_expansion("small", folder / "results")
    store = Store(folder / "results")
    return {
        (cell.key, seed): store.run(identity).record()
        for cell in expansion.cells
        for seed, identity in cell.runs.items()
    }


def run(skd: Skd, *arguments: Any) -> tuple[int, str, str]:
    return skd("train", "small", "--threads", 1, "--device", "cpu", *arguments)


def test_a_study_is_completed_with_its_teacher_seed_by_seed(skd: Skd, small: Path) -> None:
    status, out, _ = run(skd)
    assert status == 0
    stored = records(small)
    assert len(stored) == 10
    assert all(stored.values())
    lines = out.splitlines()
    assert lines[0].startswith("teacher good: ")
    assert lines[-1] == "all 10 runs have a record; to write the report: skd-report small"
    seeds = [line.split(" seed ")[1][0] for line in lines[1:-1]]
    assert seeds == ["0"] * 5 + ["1"] * 5
    finished = {key: record.finished_at for key, record in stored.items()}
    assert run(skd)[:2] == (0, lines[-1] + "\n")  # nothing is left
    assert {key: record.finished_at for key, record in records(small).items()} == finished


def test_a_named_pair_is_trained_with_all_of_its_methods(skd: Skd, small: Path) -> None:
    assert skd("teacher", "small", "good", "--threads", 1)[0] == 0
    status, out, _ = run(skd, "good--resnet14", "--seed", 1)
    assert status == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["good--resnet14/skd seed 1"]
    status, _, error = run(skd, "good--resnet41")
    assert (status, "did you mean 'good--resnet14'?" in error) == (2, True)


@pytest.fixture
def long(small: Path) -> None:
    """A study whose views pay: 25 an image, and 2 methods x 2 seeds x 7 epochs ask for more."""
    sheet = small / "sheets" / "small.yaml"
    one_pair = SHEET.replace("  - {teacher: good, student: resnet14, without: [kd]}\n", "")
    one_pair = one_pair.replace("epochs: 2", "epochs: 7")
    sheet.write_text(one_pair.replace("{seed: 7}", "{seed: 7, recipe: {epochs: 1}}"))


@pytest.mark.usefixtures("long")
def test_views_are_stored_where_they_pay(skd: Skd, small: Path) -> None:
    status, out, _ = run(skd, "--seed", 0)
    assert status == 0
    assert "views of good: logits of 80 images x 25 views x 10" in out
    finished = {key: record for key, record in records(small).items() if record}
    taught = {key[0]: record.execution["teacher"] for key, record in finished.items()}
    assert taught == {
        "resnet8/student": None,
        "good--resnet8/kd": "float16",
        "good--resnet8/skd": "float16",
    }


@pytest.mark.usefixtures("long")
def test_views_are_not_stored_if_a_live_teacher_is_requested(skd: Skd) -> None:
    assert run(skd, "--seed", 0, "--teacher-views", "live")[0] == 0
    assert not list(Path("results").glob("teachers/*/views-*"))


def test_a_precision_that_is_asked_for_is_stored_even_where_it_does_not_pay(
    skd: Skd, small: Path
) -> None:
    status, out, error = run(skd, "--seed", 0, "--teacher-views", "float32")
    assert (status, error.count("NOT TRAINED")) == (0, 0)
    assert "views of good: logits of 80 images x 25 views x 10, float32" in out
    taught = {record.execution["teacher"] for record in records(small).values() if record}
    assert taught == {None, "float32"}


@pytest.mark.usefixtures("long")
def test_views_that_cannot_be_stored_are_computed_by_the_live_teacher(
    skd: Skd, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("skd.training.prerequisites.store_teacher_views", full)
    status, _, error = run(skd, "--seed", 0)
    assert status == 0
    assert "views of good are not stored: No space left on device" in error
    taught = {record.execution["teacher"] for record in records(small).values() if record}
    assert taught == {None, "live"}


class Clock:
    """Advance the clock at each reading."""

    def __init__(self, looks: int) -> None:
        self._times = itertools.chain([0.0] * looks, itertools.repeat(1e9))

    def monotonic(self) -> float:
        return next(self._times)


def test_in_short_slots_it_ends_with_the_bits_of_a_long_one(
    skd: Skd, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(skd, "--results", "whole")[0] == 0
    statuses = []
    for looks in itertools.chain([1, 3, 6], itertools.repeat(12)):
        monkeypatch.setattr(stopping, "time", Clock(looks))
        status, _, error = run(skd, "--minutes", 14)
        statuses.append(status)
        if not status:
            break
        assert (
            error.splitlines()[-1]
            == "skd: the 14 minutes are over; run the same command again to continue"
        )
    assert set(statuses[:-1]) == {75}
    expansion, whole, slots = load_expansion("small", Path("whole")), Store(Path("whole")), {}
    for key, record in records(small).items():
        slots[key] = record.cost.sessions
        cell = expansion.cell_by_key(key[0])
        assert tiny.numbers(record) == tiny.numbers(whole.run(cell.runs[key[1]]).record()), key
    assert max(slots.values()) > 1


def test_without_time_nothing_is_trained_and_this_is_reported(skd: Skd, small: Path) -> None:
    status, _, error = run(skd, "--minutes", 0)
    assert status == 75
    assert "the 0 minutes are over" in error
    assert not any(records(small).values())


def test_lanes_make_a_study_too(skd: Skd, small: Path) -> None:
    assert run(skd, "--lanes", 2, "--seed", 0)[0] == 0
    finished = [record for record in records(small).values() if record]
    assert {record.execution["sharing"] for record in finished} == {2}
    assert run(skd, "--lanes", 8)[0] == 0  # as many as there are runs left
    later = [record for record in records(small).values() if record.execution["sharing"] != 2]
    assert {record.execution["sharing"] for record in later} == {5}


def test_a_teacher_that_fails_is_reported_and_the_others_students_are_trained(
    skd: Skd, small: Path
) -> None:
    (small / "sheets" / "small.yaml").write_text(BOTH)
    status, _, error = run(skd)
    assert status == 1
    assert "NOT MADE teacher missing: the checkpoint" in error
    assert "4 of 14 runs have no record; 4 of them were not started because" in error
    missing = {key[0] for key, record in records(small).items() if record is None}
    assert missing == {"missing--resnet14/kd", "missing--resnet14/skd"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compile", "always", "--step", "plain"), "plain steps are neither compiled"),
        (("--kernels", "always"), "the kernels run on a GPU only"),
        (("--device", "cuda"), "--device cuda: torch finds no CUDA device here"),
    ],
)
def test_options_that_suit_no_run_are_refused_once(
    skd: Skd, small: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, error = run(skd, *options)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not list(Path("results").glob("runs/*"))
    assert not list(Path("results").glob("teachers/*"))


def test_several_processes_need_a_pair(
    skd: Skd, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def two(device: str) -> Iterator[Any]:
        yield SimpleNamespace(world_size=2, rank=0, broadcast=lambda make: make())

    monkeypatch.setattr("skd.training.distributed.join_team", two)
    status, _, error = run(skd)
    assert status == 2
    assert "several processes train the runs of a pair: name a pair" in error


def test_an_order_by_cells_is_kept_for_a_pair() -> None:
    cells = [SimpleNamespace(key=key, runs={0: "", 1: ""}) for key in "ab"]
    by_cell = order_runs(cells, (), by_seed=False)
    assert [(cell.key, seed) for cell, seed in by_cell] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    by_seed = order_runs(cells, [1, 0], by_seed=True)
    assert [(cell.key, seed) for cell, seed in by_seed] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
