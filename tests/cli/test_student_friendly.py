"""`skd train`, status, show and report of a study whose methods train teachers of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from report.frames.cells import find_pairs
from report.frames.method_variants import method_variants, setting_curves, temperature_groups
from report.frames.study_frames import build_frames
from report.output.write import write_report
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.expansion_files import load_expansion
from tests.builders.commands import Skd

SHEET = """
title: friendly
dataset: {name: digits, train_limit: 80}
recipe: {epochs: 2, milestones: []}
teachers:
  good: {network: resnet14, train: {seed: 7}}
pairs:
  - {teacher: good, student: resnet8}
methods:
  - student
  - kd
  - {name: sftn+kd, like: kd, teacher: {method: sftn}}
  - name: soteacher+kd
    like: kd
    settings: {kd: {weight: 0.5, cross_entropy: 0.5}}
    teacher: {method: soteacher}
  - {name: hot, like: kd, settings: {kd: {temperature: 8}}, teacher: {method: sftn}}
seeds: 2
"""
OWN = {"sftn+kd": "good-sftn-resnet8", "soteacher+kd": "good-soteacher", "hot": "good-sftn-resnet8"}
PAIR = ("good", "resnet8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a working directory with the sheet."""
    path = tmp_path_factory.mktemp("friendly")
    (path / "sheets").mkdir()
    (path / "sheets" / "friendly.yaml").write_text(SHEET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKD_STUDIES", str(path / "sheets"))
        patch.chdir(path)
        yield path


@pytest.fixture
def study(folder: Path) -> Expansion:
    return load_expansion("friendly", folder / "results")


def test_one_command_trains_all_teachers_and_runs(skd: Skd, folder: Path, study: Expansion) -> None:
    status, out, _ = skd("train", "friendly", "--threads", 1, "--device", "cpu")
    assert status == 0
    teachers = [line.split(":")[0] for line in out.splitlines() if line.startswith("teacher ")]
    assert teachers == ["teacher good", *(f"teacher {OWN[name]}" for name in [*OWN][:2])]
    store = Store(folder / "results")
    for cell in study.cells:
        for identity in cell.runs.values():
            record = store.run(identity).record()
            taught = record.teacher and record.teacher.id
            assert taught == (cell.teacher and study.teacher(cell.teacher).id)


def test_commands_say_whom_a_teacher_suits(skd: Skd, study: Expansion) -> None:
    assert "teacher good-sftn-resnet8" in skd("status", "friendly")[1]
    shown = skd("show", "friendly/good-sftn-resnet8")[1]
    assert "resnet8, its partner in the training" in shown
    assert "trained here by sftn for resnet8, seed 7, 2 epochs" in shown
    (data,) = json.loads(skd("show", "friendly/good-sftn-resnet8", "--json")[1])["entries"]
    assert (data["partner"], data["card"]["partner"]) == ("resnet8", "resnet8")
    (taught,) = json.loads(skd("show", "friendly/good--resnet8/sftn+kd/0", "--json")[1])["entries"]
    assert taught["teacher"]["id"] == study.teacher("good-sftn-resnet8").id


def test_the_report_has_the_methods_side_by_side_with_their_teachers(
    skd: Skd, folder: Path, study: Expansion
) -> None:
    status, _, error = skd("analyse", "friendly")
    assert (status, error) == (0, "")
    write_report(study, folder / "results")
    text = (folder / "results" / "friendly" / "report" / "results.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| SFTN + KD")]
    assert rows[0].startswith("| SFTN + KD<br>with its own teacher | ")
    assert rows[1].startswith("| SFTN + KD<br>teacher good-sftn-resnet8 | ")
    assert "| good-sftn-resnet8<br>ResNet-14 |" in text
    assert "trained here by soteacher, seed 7, 2 epochs" in text
    # Different teachers are intended: nothing is marked as a mix of them.
    assert "mixes" not in text
    assert "different teachers" not in text


def test_a_methods_own_teacher_is_no_mix_of_teachers_but_a_replaced_one_is(
    folder: Path, study: Expansion
) -> None:
    frames = build_frames(study, Store(folder / "results"))
    (pair,) = find_pairs(study, frames, {})
    assert {cell.method: cell.own_teacher for cell in pair.cells if cell.own_teacher} == OWN
    assert not pair.has_mixed_teachers
    assert not [mark for cell in pair.cells for mark in cell.marks if mark.kind == "mixed"]
    changed = frames.runs["method"].eq("sftn+kd") & frames.runs["seed"].eq(1)
    frames.runs.loc[changed, "teacher_sha256"] = "0" * 64
    (pair,) = find_pairs(study, frames, {})
    mixed = {c.method for c in pair.cells if any(mark.kind == "mixed" for mark in c.marks)}
    assert mixed == {"sftn+kd", "hot"}  # of the same teacher


def test_methods_with_other_teachers_are_no_variants_of_each_other(study: Expansion) -> None:
    assert method_variants(study, *PAIR, "kd") == []
    (hot,) = method_variants(study, *PAIR, "sftn+kd")
    assert hot.changes == (("kd", "temperature", 4, 8),)
    assert temperature_groups(study, *PAIR) == [{4: "sftn+kd", 8: "hot"}]
    assert setting_curves(study, *PAIR) == []
