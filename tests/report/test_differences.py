"""`skd diff`: two result sets of one study."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from report.diff.differences import compare_sets
from report.findings import read_findings
from skd.cli import main
from skd.cli.diff import DiffError
from skd.store.store import Store
from skd.study.expansion_files import write_expansion
from tests.builders.reported_study import FIRST, THIRD, filled, make_card, make_record


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    """Return two folders of the same runs; in B the third pair's kd is higher, on another torch."""
    folders = (tmp_path / "a", tmp_path / "b")
    study = filled(folders[0])
    write_expansion(study, folders[0])
    shutil.copytree(*folders)
    store = Store(folders[1])
    environment = {"torch": "2.11.0", "gpu": "NVIDIA H200"}
    for seed, top1 in enumerate((67.3, 67.4, 67.5)):
        cell = study.cell(THIRD, "kd")
        store.run(cell.runs[seed]).write(make_record(cell, seed, top1, environment=environment))
    return folders


def test_sets_are_compared_run_by_run_and_cell_by_cell(sets) -> None:
    study = filled(sets[0].parent / "again")
    comparison = compare_sets(*(read_findings(study, folder) for folder in sets))
    assert (comparison.equal, comparison.unequal, comparison.only_a, comparison.only_b) == (
        23,
        3,
        0,
        0,
    )
    assert comparison.environment_differences["torch"] == (
        {"2.15.0": 26},
        {"2.15.0": 23, "2.11.0": 3},
    )
    assert "skd" not in comparison.environment_differences
    cells = {(c.a.pair, c.a.method): c for c in comparison.cells}
    assert len(cells) == 11
    kd = cells["vgg13 → MobileNetV2", "kd"]
    assert kd.difference.mean == pytest.approx(1.4)
    assert (kd.verdicts, kd.verdict_flipped) == (("lower", "reproduced"), True)
    assert [key for key, cell in cells.items() if cell.verdict_flipped or cell.significant] == [
        ("vgg13 → MobileNetV2", "kd")
    ]


def test_a_verdict_that_comes_to_be_is_a_flipped_one(sets) -> None:
    study = filled(sets[0].parent / "again")
    for run in study.cell(THIRD, "dkd").runs.values():
        Store(sets[0]).run(run).record_path.unlink()
    comparison = compare_sets(*(read_findings(study, folder) for folder in sets))
    (dkd,) = (cell for cell in comparison.cells if cell.a.method == "dkd")
    assert (dkd.verdicts, dkd.difference) == (("not run", "higher"), None)
    assert comparison.only_b == 3


def test_a_set_beside_itself_differs_in_nothing(sets) -> None:
    study = filled(sets[0].parent / "again")
    comparison = compare_sets(read_findings(study, sets[0]), read_findings(study, sets[0]))
    assert (comparison.unequal, comparison.only_a, comparison.environment_differences) == (0, 0, {})
    assert not any(cell.verdict_flipped or cell.significant for cell in comparison.cells)


def test_other_teachers_are_reported(sets) -> None:
    study = filled(sets[0].parent / "again")
    for folder, sha in zip(sets, ("ab", "cd"), strict=True):
        card = make_card(study, "resnet56", sha256=sha * 32)
        record = make_record(study.cell(FIRST, "kd"), 0, 70.0, teacher=card)
        Store(folder).run(record.id).write(record)
    comparison = compare_sets(*(read_findings(study, folder) for folder in sets))
    same_teacher = {(c.a.pair, c.a.method): c.same_teacher for c in comparison.cells}
    assert same_teacher["resnet56 → resnet20", "kd"] is False
    assert same_teacher["resnet56 → resnet20", "skd"] is None


def test_the_command_lists_flipped_verdicts(sets) -> None:
    done = CliRunner().invoke(main.app, ["diff", *map(str, sets)], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    assert "Flipped verdicts: 1" in done.output
    assert "lower → reproduced" in done.output
    assert "23 equal in all numbers, 3 not" in done.output
    assert "2.11.0 (3)" in done.output


def test_what_cannot_be_compared_is_refused(sets, tmp_path) -> None:
    def refused(*arguments: object) -> str:
        done = CliRunner().invoke(main.app, ["diff", *map(str, arguments)])
        assert isinstance(done.exception, DiffError)
        return str(done.exception)

    assert "is not a folder" in refused(sets[0], tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no study in common" in refused(sets[0], tmp_path / "empty")
    assert "allowed: small" in refused(*sets, "--study", "smal")
    (sets[1] / "small" / "specs.json").write_text("{}")
    assert "small: damaged, edited or from another release" in refused(*sets)
