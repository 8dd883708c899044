"""A sheet's values: booleans are not numbers, names fit into file names, `~` is a home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from skd.common.files import write_atomically
from skd.common.names import MAX_FILE_NAME_BYTES, MAX_NAME_LENGTH
from skd.data import data_root
from skd.jobs.driver import job_comment
from skd.jobs.workers import history_log
from skd.planning.batches import JobShape, make_batches
from skd.store.store import Store
from skd.study.sheet import ImportSource, Sheet, read_sheet
from skd.study.sheet_files import StudyError, find_sheet, study_folders
from tests.builders.planned_studies import study

LONG = "x" * MAX_NAME_LENGTH
DATA = {
    "title": "T",
    "dataset": {"name": "synthetic"},
    "teachers": {"resnet20": {"train": {"seed": 0}}},
    "pairs": [{"teacher": "resnet20", "student": "resnet8"}],
    "methods": ["student", "kd"],
    "seeds": 2,
}


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as refused:
        read_sheet(path)
    return str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("seeds: [yes, no]", "seeds.0"),
        ("seeds: [true, false]", "seeds: true and false are not allowed in it"),
        ("seeds: [0, [true]]", "seeds: true and false"),
        ("seeds: 1:30", "got '1:30'"),
        ("recipe: {epochs: 1:30}", "recipe.epochs"),
        ("recipe: {milestones: [on]}", "recipe.milestones.0"),
        ("recipe: {milestones: [true]}", "milestones: true and false are not allowed in it"),
        ("recipe: {epochs: true}", "epochs: true is not allowed"),
        ("title: 2024", "title"),
        (f"methods: [{{name: x{LONG}, like: kd}}]", f"at most {MAX_NAME_LENGTH}"),
        (f"teachers: {{x{LONG}: {{network: resnet20, train: {{seed: 0}}}}}}", "has 51 characters"),
        (f"pairs: [{{teacher: resnet20, student: x{LONG}}}]", "has 51 characters"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path: Path, changes: str, words: str) -> None:
    key = changes.partition(":")[0]
    rest = yaml.safe_dump({name: value for name, value in DATA.items() if name != key})
    assert words in refusal(tmp_path, rest + changes + "\n")


def test_booleans_stay_where_they_are_meant() -> None:
    sheet_data = {**DATA, "recipe": {"nesterov": True}}
    sheet_data["teachers"] = {
        "resnet20": {"import": {"file": "x", "seen_validation": True, "sha256": "0" * 8}}
    }
    sheet = Sheet.model_validate(sheet_data)
    assert sheet.recipe.nesterov
    assert sheet.teachers["resnet20"].import_.seen_validation


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"url": "http://[::1"}, "is not a URL: Invalid IPv6 URL"),
        ({"url": "http://host:99999/x"}, "is not a URL: Port out of range"),
        ({"url": "https:///x"}, "has no host"),
        ({"url": "host/x"}, "start it with https://"),
        ({"url": "https://host/a b"}, "percent-encode"),
        ({"url": "https://host/é"}, "percent-encode"),
        ({"url": ""}, "start it with https://"),
        ({"file": "a" * 256}, "has 256 bytes"),
        ({"file": "x", "sha256": 12345678}, "write them in quotes"),
    ],
)
def test_a_source_that_none_can_have_is_refused(source: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImportSource(**{"sha256": "0" * 8, **source})


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("SKD_DATA", "SKD_STUDIES", "SKD_TEACHERS"):
        monkeypatch.setenv(variable, "~/mine")
    mine = tmp_path / "mine"
    assert (data_root(), study_folders()[0]) == (mine, mine)
    assert Store(Path("results")).teachers == mine
    assert ImportSource(file="~/a.pth").file == tmp_path / "a.pth"
    assert ImportSource(file="$SKD_DATA/a.pth").file == mine / "a.pth"
    assert ImportSource(file="~nobody-of-this-name/a.pth").file == Path(
        "~nobody-of-this-name/a.pth"
    )
    monkeypatch.setenv("SKD_DATA", "")
    assert data_root() == Path("data")


def test_results_may_be_given_with_a_tilde(
    skd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert skd("expand", "demo", "--results=~/mine")[0] == 0
    assert (tmp_path / "mine" / "demo" / "specs.json").is_file()


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + ".yaml", "a\0b", "a\0b.yaml"])
def test_a_study_of_a_name_that_no_file_can_have_is_unknown(name: str) -> None:
    with pytest.raises(StudyError, match=r"unknown study|no such study sheet"):
        find_sheet(name)


def test_a_study_of_too_long_a_name_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / f"x{LONG}.yaml").touch()
    with pytest.raises(StudyError, match=r"the study's name, .* has 51 characters"):
        find_sheet(str(path))


def test_the_longest_names_make_files_that_can_be_written(tmp_path: Path) -> None:
    methods = tuple(f"{LONG[:-4]}{number:04}" for number in range(1200))
    small = study((("resnet56", "resnet20"),), ("kd", "at"))
    cells = [
        cell.model_copy(update={"pair": f"{LONG}--{LONG}", "method": method})
        for cell in small.cells[:1]
        for method in methods
    ]
    many = small.model_copy(update={"cells": tuple(cells), "study": LONG})
    (batch,) = make_batches(many, JobShape(cells_per_job=len(cells)), dict).batches
    assert batch.name.endswith("-and-1199-more")
    log = tmp_path / LONG / f"{batch.path}.log"
    for path in (log, history_log(log), log.with_suffix(".json")):
        write_atomically(path, b"x")
    # The plugin uses the name for a folder of logs.
    logs = job_comment("train", LONG, batch.pair, batch.name, batch.digest)
    (tmp_path / logs.partition("wildcards_")[2]).mkdir()


def test_the_longest_file_name_is_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / ("é" * (MAX_FILE_NAME_BYTES // 2))
    write_atomically(path, b"x")
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208
