"""Sheets that extend others, pairs without some methods, and methods that do not fit a pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from skd.expansion.expand import expand_study
from skd.expansion.listing import studies_table
from skd.study.expansion import Expansion
from skd.study.expansion_files import expansion_sources_digest
from skd.study.sheet_files import StudyError, find_sheet, sheet_files

BASE = """
title: Base
dataset: {name: synthetic}
recipe: {epochs: 4, milestones: [2]}
teachers:
  vgg8: {train: {seed: 0}}
  resnet20: {train: {seed: 0}}
pairs:
  - {teacher: resnet20, student: resnet8, settings: {dkd: {beta: 2}}}
methods: [student, dkd]
settings: {dkd: {warmup_epochs: 2}, reviewkd: {warmup_epochs: 2}}
seeds: 2
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")

    def write_sheet(text: str, name: str = "mine") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return write_sheet


def runs_of(expansion: Expansion) -> set[str]:
    return {identity for cell in expansion.cells for identity in cell.runs.values()}


# Sheets that extend others.


def test_a_sheets_values_replace_those_of_the_extended_sheet(write: Write) -> None:
    write("extends: base\ntitle: Mine\nmethods: [student, kd]\nrecipe: {epochs: 300}\n")
    mine, base = expand_study("mine"), expand_study("base")
    assert (mine.title, mine.methods, mine.seeds) == ("Mine", ("student", "kd"), (0, 1))
    assert mine.recipe.epochs == 300
    assert mine.recipe.milestones == (150, 180, 210)  # the whole recipe is replaced
    assert (mine.pairs, base.methods) == (base.pairs, ("student", "dkd"))
    assert mine.sheet.startswith("extends: base")
    assert "base.yaml, which this extends" in mine.sheet
    assert BASE in mine.sheet


def test_an_extension_that_changes_nothing_has_the_same_runs(write: Write) -> None:
    write("extends: base\n")
    write("extends: mine\ntitle: Another\n", "third")
    assert runs_of(expand_study("third")) == runs_of(expand_study("base"))
    assert [path.stem for path in sheet_files(find_sheet("third"))] == ["third", "mine", "base"]


def test_an_edit_of_the_extended_sheet_is_noticed(write: Write) -> None:
    path = write("extends: base\n")
    before = expansion_sources_digest(path)
    write(BASE.replace("seeds: 2", "seeds: 3"), "base")
    assert expansion_sources_digest(path) != before
    assert expand_study("mine").seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: bass\n", r"mine.yaml: extends: unknown study 'bass' \(did you mean 'base'\?\)"),
        ("extends: empty\n", r"empty.yaml: a sheet is a mapping"),
        ("- a list\n", r"mine.yaml: a sheet is a mapping"),
        ("extends: mine\n", r"mine.yaml: extends itself, by way of mine.yaml"),
        ("extends: [base]\n", "extends: a study's name, got"),
        ("extends: base\ntitel: T\n", "unknown key 'titel'"),
    ],
)
def test_a_wrong_extension_is_refused(write: Write, text: str, words: str) -> None:
    write(text)
    with pytest.raises(StudyError, match=words):
        expand_study("mine")


def test_ones_own_sheet_may_extend_the_shipped_one_of_its_name(write: Write) -> None:
    own = write("extends: demo\nseeds: 1\n", "demo")
    assert [path == own for path in sheet_files(own)] == [True, False]
    assert expand_study("demo").seeds == (0,)


def test_two_sheets_that_extend_each_other_are_refused(write: Write) -> None:
    write("extends: other\n")
    write("extends: mine\n", "other")
    with pytest.raises(StudyError, match=r"mine.yaml: extends itself, by way of mine.yaml"):
        expand_study("mine")


# Pairs without methods, and methods that do not fit.

PAIRS = "extends: base\npairs:\n  - {teacher: resnet20, student: resnet8}\n"
UNEQUAL = "  - {teacher: vgg8, student: resnet8}\n"


def test_a_pair_goes_without_methods_and_the_others_keep_theirs(write: Write) -> None:
    unequal = UNEQUAL.replace("}", ", without: [dkd]}")
    write(PAIRS + unequal + "methods: [student, kd, dkd]")
    study = expand_study("mine")
    assert study.methods_of("resnet20", "resnet8") == ["student", "kd", "dkd"]
    assert study.methods_of("vgg8", "resnet8") == ["student", "kd"]
    assert {cell.key for cell in study.cells if cell.method == "dkd"} == {"resnet20--resnet8/dkd"}


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("[dkb]", r"without: unknown method 'dkb' \(did you mean 'dkd'\?\); allowed: student, dkd"),
        ("[student]", "student needs no teacher: it belongs to the student"),
    ],
)
def test_a_wrong_exclusion_is_refused(write: Write, without: str, words: str) -> None:
    write(PAIRS + UNEQUAL.replace("}", f", without: {without}}}"))
    with pytest.raises(StudyError, match=words):
        expand_study("mine")


def test_a_method_that_does_not_fit_a_pair_is_refused_with_reason_and_remedy(write: Write) -> None:
    write(PAIRS + UNEQUAL + "methods: [student, skd+reviewkd]\n")
    with pytest.raises(StudyError) as refused:
        expand_study("mine")
    assert "pairs: vgg8--resnet8: skd+reviewkd: " in str(refused.value)
    assert "the student has 3 after the stem, the teacher 4" in str(refused.value)
    assert "'without: [skd+reviewkd]'" in str(refused.value)


def test_settings_that_do_not_fit_the_data_set_are_refused_before_any_run(write: Write) -> None:
    heads = "methods: [{name: three, like: skd, settings: {simplifier: {heads: 3}}}]\n"
    write("extends: base\n" + heads)
    with pytest.raises(StudyError, match="the width 10 is not a multiple of the 3 heads"):
        expand_study("mine")


def test_more_training_images_than_there_are_are_refused(write: Write) -> None:
    write("extends: base\ndataset: {name: synthetic, train_limit: 273}\n")
    with pytest.raises(StudyError, match=r"train_limit: 273 exceeds .* 272"):
        expand_study("mine")


def test_an_installation_without_studies_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path / "mine"))
    monkeypatch.setattr("skd.study.sheet_files.STUDIES_FOLDER", tmp_path / "shipped")
    for search in (lambda: find_sheet("demo"), studies_table):
        with pytest.raises(StudyError, match="set SKD_STUDIES to a folder") as caught:
            search()
        assert all(str(tmp_path / name) in str(caught.value) for name in ("mine", "shipped"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.yaml").write_text("title: One")
    with pytest.raises(StudyError, match="unknown study 'demo'; allowed: one"):
        find_sheet("demo")
