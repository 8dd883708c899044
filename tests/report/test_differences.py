"""`skd diff`: two result sets of one study."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from report.diff.differences import compare_sets
from report.diff.distances import Distance, RunDistance, measure_distances
from report.diff.distances_text import render_distances
from report.findings import read_findings
from skd.cli import main
from skd.cli.diff import DiffError
from skd.common.errors import SkdError
from skd.store.store import Store
from skd.study.expansion_files import expansion_path, read_expansion_file, write_expansion
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


def test_the_distance_is_that_of_the_runs_with_one_identity(sets) -> None:
    study = filled(sets[0].parent / "again")
    # In A, kd of the third pair has 66.0, 66.1 and 65.9; a run of another pair has other losses.
    cell = study.cell(FIRST, "skd+kd")
    store = Store(sets[1])
    record = store.run(cell.runs[2]).record()
    last = record.epochs[-1].model_copy(update={"test_loss": 9.0})
    store.run(record.id).write(record.model_copy(update={"epochs": (*record.epochs[:-1], last)}))
    overall, groups = measure_distances(*(read_findings(study, folder) for folder in sets))
    assert (overall.runs, overall.unequal) == (26, 4)
    assert overall.mean == pytest.approx((1.3 + 1.3 + 1.6) / 26)
    assert overall.largest == pytest.approx(1.6)
    assert overall.furthest.label == f"{THIRD}/kd seed 2"
    assert groups[0].name == f"{THIRD}/kd"
    assert (groups[0].runs, groups[0].unequal) == (3, 3)
    assert groups[0].mean == pytest.approx(4.2 / 3)
    assert [group.name for group in groups if group.unequal] == [f"{THIRD}/kd", f"{FIRST}/skd+kd"]


def test_a_lower_accuracy_has_a_distance_above_zero_and_a_negative_change(sets) -> None:
    study = filled(sets[0].parent / "again")
    overall, groups = measure_distances(*(read_findings(study, side) for side in reversed(sets)))
    assert overall.largest == pytest.approx(1.6)
    assert groups[0].mean_change == pytest.approx(-1.4)


def test_a_teacher_with_other_weights_is_listed(sets) -> None:
    study = filled(sets[0].parent / "again")
    cards = [make_card(study, "resnet56", sha256=sha * 32) for sha in ("ab", "cd")]
    cards[1] = cards[1].model_copy(update={"test_top1": cards[0].test_top1 + 0.5})
    for folder, card in zip(sets, cards, strict=True):
        Store(folder).teacher(card.id).write(card)
    _, groups = measure_distances(*(read_findings(study, folder) for folder in sets))
    (teacher,) = (group for group in groups if group.name == "teacher resnet56")
    assert (teacher.unequal, teacher.largest) == (1, pytest.approx(0.5))


def test_the_table_of_distances_is_short_unless_all_is_asked_for() -> None:
    runs = [RunDistance(f"a--b/m{i}", "seed 0", i / 10, equal=i == 0) for i in range(13)]
    groups = [Distance.of(run.group, [run]) for run in reversed(runs)]

    def printed(show_all: bool) -> str:
        console = Console(file=io.StringIO(), width=80)
        console.print(*render_distances(Distance.of("all", runs), groups, 500, show_all), sep="\n")
        return console.file.getvalue()

    short, whole = printed(False), printed(True)
    assert "at most 1.20 (a--b/m12 seed 0)" in " ".join(short.split())
    assert "one test image is 0.2 points" in " ".join(short.split())
    assert "2 more with smaller differences: --all" in short
    assert "m3 " in short and "m2 " not in short  # noqa: PT018  one property
    assert "m1 " in whole and "m0 " not in whole  # noqa: PT018
    assert not any(len(line) > 80 for line in whole.splitlines())


@pytest.fixture
def reference(sets, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Let A be the committed records; return A and B."""
    (sets[0] / "small" / "analysis.json").write_text("{}")
    monkeypatch.setattr("skd.cli.diff.REFERENCE", sets[0])
    monkeypatch.setattr(
        "skd.study.expansion_files.load_expansion_readonly",
        lambda name, results: read_expansion_file(expansion_path(sets[0], name)),
    )
    return sets


def test_results_are_compared_with_the_committed_records(reference, monkeypatch) -> None:
    for arguments in ([reference[1]], []):
        if not arguments:
            reference[1].rename(reference[1].parent / "results")
            monkeypatch.chdir(reference[1].parent)
        done = CliRunner().invoke(main.app, ["diff", *map(str, arguments), "--reference", "small"])
        assert done.exit_code == 0
        assert "at most 1.60 (" in " ".join(done.output.split())
        assert "1.40" in done.output
        assert f"A: {reference[0]}" in "".join(done.output.splitlines())


def test_a_comparison_with_the_committed_records_that_cannot_be_made(reference, tmp_path) -> None:
    def refused(*arguments: object) -> str:
        done = CliRunner().invoke(main.app, ["diff", *map(str, arguments)])
        assert isinstance(done.exception, SkdError)
        return str(done.exception)

    mine = reference[1]
    assert "allowed: small" in refused(mine, "--reference", "smal")
    assert "takes one results folder" in refused(*reference, "--reference", "small")
    assert "takes one results folder" in refused(mine, "--reference", "small", "--study", "small")
    assert "skd diff --reference STUDY" in refused(mine)
    assert "there is no results folder" in refused(tmp_path / "none", "--reference", "small")
    shutil.rmtree(mine / "runs")
    assert "has no finished run of study small as its sheet is now" in refused(
        mine, "--reference", "small"
    )


def test_an_installation_without_committed_records_says_so(reference, monkeypatch) -> None:
    monkeypatch.setattr("skd.cli.diff.REFERENCE", reference[0] / "nothing")
    done = CliRunner().invoke(main.app, ["diff", str(reference[1]), "--reference", "small"])
    assert "they come with a clone" in str(done.exception)


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
