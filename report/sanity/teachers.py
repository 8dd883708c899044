"""Checks of the teachers: are they better than chance, and better than their students?"""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import number
from report.frames.cells import CONTROL, PairFinding
from report.frames.study_frames import Frames
from report.names import Names
from report.sanity.doubts import Doubt, name_some
from skd.store.teacher_accuracy import min_teacher_accuracy

PairNumbers = tuple[str, str]  # a pair's label, and its accuracies as text


def doubtful_teachers(
    frames: Frames, pairs: Sequence[PairFinding], classes: int, names: Names
) -> list[Doubt]:
    """Return the teachers that are close to chance, or far below the published accuracy."""
    poor, below = {}, {}
    for teacher in frames.teachers.to_dict("records"):
        if teacher["doubts"]:
            at_chance = teacher["test_top1"] < min_teacher_accuracy(classes)
            (poor if at_chance else below)[teacher["name"]] = teacher["doubts"]
    check = "Check that the weights, the network and the data set belong together."
    doubts = []
    if poor:
        used = {pair.teacher.name for pair in pairs}
        doubts.append(
            Doubt(
                "teacher-at-chance",
                "fatal" if used <= poor.keys() else "caution",
                f"{_teachers(poor, names)} at or near chance level, so the results of "
                f"{'its' if len(poor) == 1 else 'their'} students do not measure the methods. "
                f"{check}",
                _lines(poor, names),
            )
        )
    if below:
        doubts.append(
            Doubt(
                "teacher-below-published",
                "caution",
                f"{_teachers(below, names)} far below the published accuracy. {check}",
                _lines(below, names),
            )
        )
    return doubts


def students_above_teachers(pairs: Sequence[PairFinding], names: Names) -> list[Doubt]:
    """Return the pairs whose student alone is as good as its teacher, or almost."""
    above, near = [], []
    for pair in pairs:
        alone = pair.cell(CONTROL)
        if alone is None or alone.last.mean is None or pair.teacher.top1 is None:
            continue
        lead = pair.teacher.top1 - alone.last.mean
        accuracies = (
            f"student alone {number(alone.last.mean, 1)} %, teacher "
            f"{number(pair.teacher.top1, 1)} %"
        )
        if lead <= 0:
            above.append((names.pair(pair), accuracies))
        elif alone.last.sd is not None and lead < alone.last.sd:
            near.append((names.pair(pair), accuracies))
    doubts = []
    if above:
        everywhere = len(above) == len(pairs)
        doubts.append(
            Doubt(
                "student-above-teacher",
                "fatal" if everywhere else "caution",
                f"The student alone is at least as good as its teacher{_where(above, pairs)}, so "
                "there is little to distil. Such a pair says little about the methods.",
                _details(above),
            )
        )
    if near:
        doubts.append(
            Doubt(
                "student-near-teacher",
                "caution",
                "The teacher is better than the student alone by less than the standard deviation "
                f"over seeds{_where(near, pairs)}, so there is little to distil.",
                _details(near),
            )
        )
    return doubts


def _where(found: Sequence[PairNumbers], pairs: Sequence[PairFinding]) -> str:
    """Return which pairs are meant; of a single one with its accuracies."""
    label, accuracies = found[0]
    if len(pairs) == 1:
        return f" ({accuracies})"
    if len(found) == len(pairs):
        return " in all pairs"
    if len(found) == 1:
        return f" on {label} ({accuracies})"
    return f" in {len(found)} of {len(pairs)} pairs"


def _details(found: Sequence[PairNumbers]) -> tuple[str, ...]:
    """Return a line for each pair, but none for a single one: the text has its accuracies."""
    return tuple(f"{label}: {accuracies}" for label, accuracies in found) if len(found) > 1 else ()


def _teachers(found: dict[str, str], names: Names) -> str:
    labels = [names.network(name) for name in found]
    return f"{'Teachers' if len(found) > 1 else 'Teacher'} {name_some(labels)} " + (
        "are" if len(found) > 1 else "is"
    )


def _lines(found: dict[str, str], names: Names) -> tuple[str, ...]:
    return tuple(f"{names.network(name)}: {reason}" for name, reason in found.items())
