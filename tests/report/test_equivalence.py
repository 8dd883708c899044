"""`skd diff --equivalence`: two ways of executing one study, tested by pairs of runs."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired
from typer.testing import CliRunner

from report.diff.differences import EXECUTION_DEFAULTS, compare_sets, recorded_execution
from report.diff.equivalence import SetEquivalence, assess_equivalence, equivalence_outcome
from report.findings import read_findings
from report.statistics.intervals import (
    Difference,
    average_by_seed,
    mean_difference,
    paired_difference,
)
from skd.cli import main
from skd.cli.diff import DiffError
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion
from skd.study.expansion_files import write_expansion
from skd.study.spec import Recipe
from tests.builders.records import make_failure
from tests.builders.reported_study import (
    ACCURACY,
    FIRST,
    PAIRS,
    THIRD,
    filled,
    make_card,
    make_record,
    make_study,
)

STEP = 0.01  # of accuracies over 10,000 images
BFLOAT16 = {"device": "cuda", "precision": "bfloat16", "compiled": True, "kernels": "h100"}
accuracies = st.integers(6_900, 7_100).map(lambda correct: correct / 100)
pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=10)
margins = st.floats(0.05, 3)
relaxed = settings(deadline=None)
Shift = Callable[[Cell, int], float]


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


# The test, against an independent reference.


@relaxed
@given(pairs, margins)
def test_it_is_statsmodels_tost_of_pairs(values, margin) -> None:
    a, b = (np.array(side) for side in zip(*values, strict=True))
    assume(np.ptp(b - a) > 0.005)
    difference = paired_difference(by_seed(b), by_seed(a))
    p, *_ = ttost_paired(b, a, -margin, margin)
    assert difference.p_within(margin) == pytest.approx(p, rel=1e-6, abs=1e-12)
    assume(abs(p - 0.05) > 1e-9)
    assert difference.is_within(margin) == (p < 0.05)
    assert (equivalence_outcome(difference, margin) == "equivalent") == (p < 0.05)


@relaxed
@given(pairs, margins)
def test_one_test_shows_that_a_difference_is_larger_than_the_margin(values, margin) -> None:
    differences = np.array([b - a for a, b in values])
    assume(np.ptp(differences) > 0.005)
    reference = DescrStatsW(differences)
    larger = reference.ttest_mean(margin, alternative="larger")[1]
    smaller = reference.ttest_mean(-margin, alternative="smaller")[1]
    assume(abs(larger - 0.05) > 1e-9)
    assume(abs(smaller - 0.05) > 1e-9)
    outcome = equivalence_outcome(mean_difference(differences), margin)
    assert (outcome == "not equivalent") == (min(larger, smaller) < 0.05)


@relaxed
@given(pairs, margins)
def test_the_order_of_the_sets_does_not_matter(values, margin) -> None:
    forward = mean_difference((b - a for a, b in values), STEP)
    back = mean_difference((a - b for a, b in values), STEP)
    assume(abs(forward.p_within(margin) - 0.05) > 1e-9)
    assert equivalence_outcome(forward, margin) == equivalence_outcome(back, margin)
    assert forward.p_within(margin) == pytest.approx(back.p_within(margin))


def test_the_accuracies_step_counts_as_spread() -> None:
    same = mean_difference([0.0, 0.0, 0.0], STEP)
    half = 2.920 * STEP * (2 / 12 / 3) ** 0.5  # t(0.95; 2), two accuracies a difference
    assert same.is_within(1.001 * half)
    assert not same.is_within(0.999 * half)


def test_one_pair_or_none_is_undecided() -> None:
    one = mean_difference([0.0], STEP)
    assert (one.is_within(9.0), one.is_beyond(0.1), one.p_within(9.0)) == (None, None, None)
    assert equivalence_outcome(one, 9.0) == equivalence_outcome(None, 9.0) == "undecided"


def test_without_any_spread_the_mean_decides() -> None:
    sure = Difference(3, 0.5, 0.0, 2)
    assert (sure.is_within(0.5), sure.p_within(0.5)) == (True, 0.0)
    assert (sure.is_within(0.4), sure.is_beyond(0.4), sure.p_within(0.4)) == (False, True, 1.0)


def test_averages_are_over_the_seeds_that_all_have() -> None:
    assert average_by_seed([{0: 1.0, 1: 2.0, 2: 9.0}, {1: 4.0, 0: 3.0}]) == {0: 2.0, 1: 3.0}
    assert average_by_seed([{0: 1.0}, {1: 1.0}]) == average_by_seed([]) == {}


def test_what_an_older_record_lacks_is_what_was_done_then() -> None:
    from skd.training.execution import Execution

    fields = Execution.model_fields.items()
    extras = {name: field.json_schema_extra or {} for name, field in fields}
    neutral = {name: extra["neutral"] for name, extra in extras.items() if "neutral" in extra}
    chosen = {name: value for name, value in neutral.items() if value is not None}
    assert {**chosen, "sharing": 1, "processes": 1, "accumulate": 1} == {
        **EXECUTION_DEFAULTS,
        "teacher": "live",
    }
    study = make_study()
    record = make_record(study.cell(FIRST, "kd"), 0, 70.0, execution={"sessions": ["x"]})
    assert recorded_execution(record) == EXECUTION_DEFAULTS
    taught = record.model_copy(update={"teacher": make_card(study, "resnet56")})
    assert recorded_execution(taught) == {**EXECUTION_DEFAULTS, "teacher": "live"}


# Two result sets.


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Expansion, Path, Path]:
    """Return two folders with the same numbers: three finished runs in each of four cells."""
    study = make_study()
    in_both = {("resnet20", "student"), (FIRST, "kd"), (FIRST, "skd+kd"), (THIRD, "kd")}
    cells = tuple(cell for cell in study.cells if (cell.pair, cell.method) in in_both)
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        write_expansion(study, folder)
        for cell in cells:
            for seed, top1 in ACCURACY[cell.pair, cell.method].items():
                Store(folder).run(cell.runs[seed]).write(make_record(cell, seed, top1))
    return study, *folders


def execute(study: Expansion, folder: Path, shift: Shift, **changes: object) -> None:
    """Replace a folder's finished runs: executed in another way, with other accuracies."""
    for cell in study.cells:
        for seed, run in cell.runs.items():
            entry = Store(folder).run(run)
            if (record := entry.record()) is not None:
                top1 = record.last.top1 + shift(cell, seed)
                changes = {"execution": BFLOAT16, "teacher": record.teacher, **changes}
                entry.write(make_record(cell, seed, top1, **changes))


def fail(study: Expansion, folder: Path, pair: str, method: str, seed: int) -> None:
    entry = Store(folder).run(study.cell(pair, method).runs[seed])
    entry.record_path.unlink()
    entry.write(make_failure(entry.id, "NaN"))


def judged(study: Expansion, a: Path, b: Path, margin: float = 0.5) -> SetEquivalence:
    return assess_equivalence(read_findings(study, a), read_findings(study, b), margin)


def outcomes(equivalence: SetEquivalence) -> Mapping[str, str]:
    return {cell.cell: cell.outcome for cell in equivalence.cells}


def small(cell: Cell, seed: int) -> float:
    return (0.04, -0.06, 0.05)[seed]


def test_sets_that_differ_little_are_equivalent_cell_by_cell(sets) -> None:
    study, _, b = sets
    execute(study, b, small)
    equivalence = judged(*sets)
    assert outcomes(equivalence) == dict.fromkeys(
        ("resnet20/student", f"{FIRST}/kd", f"{FIRST}/skd+kd", f"{THIRD}/kd"), "equivalent"
    )
    assert (equivalence.is_equivalent, equivalence.pooled_outcome, equivalence.unpaired) == (
        True,
        "equivalent",
        (),
    )
    student = equivalence.cells[0]
    expected = mean_difference([0.04, -0.06, 0.05], STEP)
    assert student.difference.mean == pytest.approx(expected.mean)
    assert student.difference.se == pytest.approx(expected.se)
    assert (student.a.n, student.a.mean, student.b.mean) == (3, 69.0, pytest.approx(69.01))
    assert equivalence.executions == (
        {"device cpu, precision float32": 12},
        {"device cuda, precision bfloat16": 12},
    )


def test_the_mean_over_cells_is_tested_over_seeds(sets) -> None:
    study, _, b = sets

    def shift(cell: Cell, seed: int) -> float:
        return small(cell, seed) + (0.2 if cell.method == "kd" else -0.1)

    execute(study, b, shift)
    equivalence = judged(*sets)
    # Of four cells two are 0.2 higher and two 0.1 lower; the seeds' own shifts do not average out.
    expected = mean_difference([0.09, -0.01, 0.10], STEP / 2)
    assert (equivalence.pooled_cells, equivalence.pooled.n) == (4, 3)
    assert equivalence.pooled.mean == pytest.approx(expected.mean)
    assert equivalence.pooled.se == pytest.approx(expected.se)


def test_one_cell_that_is_not_equivalent_is_enough(sets) -> None:
    study, _, b = sets
    execute(study, b, lambda cell, seed: small(cell, seed) + 0.8 * (cell.pair == THIRD))
    equivalence = judged(*sets)
    assert outcomes(equivalence)[f"{THIRD}/kd"] == "not equivalent"
    assert list(outcomes(equivalence).values()).count("equivalent") == 3
    assert equivalence.pooled_outcome == "equivalent"
    assert not equivalence.is_equivalent
    assert judged(*sets, margin=1.0).is_equivalent


def test_a_wide_interval_is_undecided(sets) -> None:
    study, _, b = sets
    execute(study, b, lambda cell, seed: (-0.8, 0.0, 0.8)[seed] * (cell.pair == THIRD))
    equivalence = judged(*sets)
    assert outcomes(equivalence)[f"{THIRD}/kd"] == "undecided"
    assert not equivalence.is_equivalent


def test_runs_of_another_identity_are_not_compared(sets) -> None:
    study, a, b = sets
    other = make_study(recipe=Recipe(epochs=9, milestones=(5,)))
    cell = other.cell(FIRST, "kd")
    for seed in cell.runs:
        Store(b).run(cell.runs[seed]).write(make_record(cell, seed, 70.0))
    equivalence = assess_equivalence(read_findings(study, a), read_findings(other, b), 0.5)
    assert outcomes(equivalence) == {f"{FIRST}/kd": "undecided"}
    assert (equivalence.cells[0].difference, equivalence.pooled, equivalence.is_equivalent) == (
        None,
        None,
        False,
    )
    (kd,) = [runs for runs in equivalence.unpaired if runs.cell == f"{FIRST}/kd"]
    assert (kd.seeds, kd.failed_in_one) == ((0, 1, 2), False)
    assert kd.reason == "done in A, done in B, with another identity"


def test_what_has_not_run_in_both_is_left_out_and_named(sets) -> None:
    study, a, b = sets
    for run in study.cell(THIRD, "kd").runs.values():
        Store(b).run(run).record_path.unlink()
    Store(a).run(study.cell(FIRST, "kd").runs[1]).record_path.unlink()
    equivalence = judged(*sets)
    assert f"{THIRD}/kd" not in outcomes(equivalence)
    unpaired = {
        (runs.cell, runs.seeds, runs.reason, runs.failed_in_one) for runs in equivalence.unpaired
    }
    assert unpaired == {
        (f"{THIRD}/kd", (0, 1, 2), "done in A, missing in B", False),
        (f"{FIRST}/kd", (1,), "missing in A, done in B", False),
    }
    assert (equivalence.is_equivalent, equivalence.pooled.n) == (True, 2)


def test_a_run_that_fails_in_one_set_only_is_held_against_it(sets) -> None:
    study, a, b = sets
    fail(study, b, FIRST, "kd", 2)
    equivalence = judged(*sets)
    assert set(outcomes(equivalence).values()) == {"equivalent"}
    (runs,) = equivalence.unpaired
    assert (runs.reason, runs.seeds, runs.failed_in_one) == ("done in A, failed in B", (2,), True)
    assert not equivalence.is_equivalent
    fail(study, a, FIRST, "kd", 2)  # failed in both: not a difference
    assert judged(*sets).is_equivalent


def test_other_teachers_are_reported(sets) -> None:
    study, a, b = sets
    for folder, sha in ((a, "ab"), (b, "cd")):
        for seed in range(3):
            card = make_card(study, "resnet56", sha256=sha * 32)
            record = make_record(study.cell(FIRST, "kd"), seed, 70.0, teacher=card)
            Store(folder).run(record.id).write(record)
    same = {cell.cell: cell.same_teacher for cell in judged(*sets).cells}
    assert same[f"{FIRST}/kd"] is False
    assert same["resnet20/student"] is None


def test_nothing_in_common_is_not_equivalent(sets, tmp_path: Path) -> None:
    study, a, _ = sets
    equivalence = assess_equivalence(
        read_findings(study, a), read_findings(study, tmp_path / "none"), 0.5
    )
    assert (equivalence.cells, equivalence.pooled, equivalence.is_equivalent) == ((), None, False)


def test_ways_of_executing_are_listed_where_they_differ(sets) -> None:
    study, a, b = sets
    execute(study, b, small, environment={"torch": "2.15.0", "sources": "a" * 16})
    differences = compare_sets(
        read_findings(study, a), read_findings(study, b)
    ).environment_differences
    assert differences["execution.precision"] == ({"float32": 12}, {"bfloat16": 12})
    assert differences["execution.compiled"] == ({"no": 12}, {"yes": 12})
    assert differences["execution.kernels"] == ({"none": 12}, {"h100": 12})
    assert differences["sources"] == ({"none": 12}, {"a" * 16: 12})
    assert "execution.sharing" not in differences
    assert "execution.step" not in differences


# The command.


def run(*arguments: object, columns: int = 160) -> tuple[int, str]:
    command = ["diff", *map(str, arguments)]
    done = CliRunner().invoke(main.app, command, env={"COLUMNS": str(columns)})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


def test_the_command_ends_with_0_where_all_is_equivalent(sets) -> None:
    study, a, b = sets
    execute(study, b, small)
    status, out = run(a, b, "--equivalence", 0.5)
    assert status == 0
    assert "Equivalence within ± 0.5 points: 4 of 4 cells equivalent" in out
    assert "A: device cpu, precision float32 (12 runs)" in out
    assert "B: device cuda, precision bfloat16 (12 runs)" in out
    assert "execution.precision" in out
    equivalences = out[out.index("Equivalence within") :]
    (row,) = [line for line in equivalences.splitlines() if line.startswith("resnet20 student")]
    # 0.01 ± 2.920 · √((0.0608² + 2 · 0.01²/12)/3)
    assert row.split()[2:] == ["3", "69.00", "+0.01", "−0.09", "to", "+0.11", "0.003", "equivalent"]  # noqa: RUF001
    assert "mean of 4 cells at each seed" in out
    assert "A and B are equivalent within ± 0.5 points" in out


def test_the_command_ends_with_1_where_anything_else_is_found(sets) -> None:
    study, a, b = sets
    assert run(a, b, "--equivalence", 0.001)[0] == 1
    fail(study, b, FIRST, "kd", 2)
    status, out = run(a, b, "--equivalence", 0.5)
    assert status == 1
    assert "resnet56 → resnet20 kd, seed 2: done in A, failed in B; so A and B are not" in out
    assert "A and B are NOT SHOWN TO BE EQUIVALENT within ± 0.5 points" in out
    assert run(a, b)[0] == 0


def test_every_study_must_be_equivalent(sets) -> None:
    study, a, b = sets
    second = make_study(pairs=PAIRS[:1]).model_copy(update={"study": "another"})
    for folder in (a, b):
        write_expansion(second, folder)
    execute(study, b, lambda cell, seed: small(cell, seed) + 0.8 * (cell.pair == THIRD))
    status, out = run(a, b, "--equivalence", 0.5)
    assert (status, out.count("Equivalence within")) == (1, 2)
    assert run(a, b, "--equivalence", 0.5, "--study", "small")[0] == 1
    assert run(a, b, "--equivalence", 0.5, "--study", "another")[0] == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_a_terminal(tmp_path: Path, columns: int) -> None:
    study = filled(tmp_path / "a")
    write_expansion(study, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    status, out = run(tmp_path / "a", tmp_path / "b", "--equivalence", 0.5, columns=columns)
    assert status == 1  # the second pair has one seed only
    assert "one pair" in out
    assert all(len(line) <= columns for line in out.splitlines())
    assert "…" not in out
    assert any(line.startswith("resnet110 → resnet20") for line in out.splitlines())


@pytest.mark.parametrize("points", ["0", "-1", "nan", "inf"])
def test_a_margin_that_is_none_is_refused(sets, points: str) -> None:
    _, a, b = sets
    done = CliRunner().invoke(main.app, ["diff", str(a), str(b), "--equivalence", points])
    assert isinstance(done.exception, DiffError)
    assert "allowed: a number of points above 0" in str(done.exception)
