"""Accuracies with their spread over seeds, as the tables of results write them."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import mean_and_sd, number, plural
from report.frames.cells import CONTROL, CellFinding, PairFinding
from report.names import Names
from report.statistics.intervals import Summary, average_by_seed, summarise
from report.tables.table import TableColumn, TableEntry
from skd.study.presentation import Spread

SPREAD_TEXTS = {
    "sd": "mean ± sample standard deviation over {seeds}",
    "interval": "mean over {seeds} ± half the width of its 95 % interval",
    "none": "mean over {seeds}",
}


def accuracy_text(summary: Summary, spread: Spread, decimals: int = 2) -> str:
    """Return a mean with its spread; of a single value, only the value."""
    if spread == "sd":
        return mean_and_sd(summary, decimals)
    mean, bounds = number(summary.mean, decimals), summary.interval
    if spread == "none" or bounds is None:
        return mean
    return f"{mean} ± {number((bounds[1] - bounds[0]) / 2, decimals)}"


def what_is_shown(pairs: Sequence[PairFinding], spread: Spread) -> str:
    """Return the start of a caption: which accuracy a table has, and with which spread."""
    seeds = expected_seeds(pairs)
    over = SPREAD_TEXTS[spread].format(seeds=plural(seeds, "seed")) if seeds > 1 else "of one seed"
    return f"Top-1 accuracy in percent at the last epoch, {over}"


def expected_seeds(pairs: Sequence[PairFinding]) -> int:
    """Return the number of seeds of the study; a method with fewer does not count."""
    return max(cell.expected for pair in pairs for cell in pair.cells)


def average_accuracy(cells: Sequence[CellFinding], resolution: float) -> Summary | None:
    """Return the mean over cells at each seed that all have, summarised over seeds.

    Args:
        cells: one method's cells with finished runs, of several pairs.
        resolution: the step between possible accuracies of one pair, in points.

    Returns:
        The summary; ``None`` without cells or if they have no common seed.
    """
    by_seed = average_by_seed([cell.last_by_seed for cell in cells])
    # The mean over pairs has a finer resolution than the accuracy of one pair.
    return summarise(by_seed.values(), resolution / len(cells) ** 0.5) if by_seed else None


def pair_column(pair: PairFinding, names: Names) -> TableColumn:
    """Return the column of a pair: the teacher above the student."""
    teacher, student = names.network(pair.teacher.name), names.network(pair.student)
    return TableColumn(f"{teacher}\n{student}", across=names.pair(pair))


def teacher_label(pairs: Sequence[PairFinding], names: Names) -> str:
    """Return the label of the teachers' row; of a single teacher with its name."""
    teachers = {names.network(pair.teacher.name) for pair in pairs}
    return f"Teacher: {teachers.pop()}" if len(teachers) == 1 else "Teacher"


def method_entry(pairs: Sequence[PairFinding], method: str, names: Names) -> TableEntry:
    """Return the head of a method's row: its name, and whether its teacher is not the pair's.

    The student alone has the name of its network if all pairs have the same one.
    """
    label, students = names.method(method), {names.network(pair.student) for pair in pairs}
    if method == CONTROL and len(students) == 1:
        label = f"{label}: {students.pop()}"
    cells = [cell for pair in pairs if (cell := pair.cell(method)) is not None]
    own = any(cell.own_teacher for cell in cells)
    return TableEntry(label, detail="with its own teacher" if own else "")
