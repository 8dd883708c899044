"""Checks of a teacher's measured accuracy. Imports no torch."""

from __future__ import annotations

from skd.study.published import differences_from_published, published_teacher
from skd.study.spec import TeacherSpec

PUBLISHED_TOLERANCE = 2.0  # points of top-1 below the published value


def min_teacher_accuracy(classes: int) -> float:
    """Return the top-1 accuracy in percent below which a teacher is poor.

    It is twice the chance level. For two or three classes, where that is too high, it is halfway
    from chance to 100 %.
    """
    chance = 100 / classes
    return min(2 * chance, (100 + chance) / 2)


def poor_accuracy_text(top1: float, classes: int) -> str | None:
    """Return a warning that a top-1 accuracy in percent is poor; ``None`` if it is not."""
    if top1 >= min_teacher_accuracy(classes):
        return None
    return (
        f"top-1 {top1:.2f} % on {classes} classes, where chance is {100 / classes:.2f} % and "
        f"{min_teacher_accuracy(classes):.2f} % is the minimum for a teacher"
    )


def below_published_text(spec: TeacherSpec, top1: float) -> str | None:
    """Return a warning that a teacher is below its published accuracy; ``None`` if it is not.

    A teacher that this project trains by another recipe or method than the published one is not
    compared.

    Raises:
        PublishedError: a file of published values cannot be read.
    """
    if spec.kind == "trained":
        run = spec.run
        if spec.rules or differences_from_published(run.dataset, run.recipe, run.network):
            return None
    value = published_teacher(spec.dataset, spec.network)
    if value is None or top1 >= value.top1 - PUBLISHED_TOLERANCE:
        return None
    return (
        f"top-1 {top1:.2f} % is {value.top1 - top1:.2f} points below the published "
        f"{value.top1:.2f} % ({value.source})"
    )


def accuracy_doubts(spec: TeacherSpec, top1: float, classes: int) -> list[str]:
    """Return warnings about a teacher's accuracy, which may be none.

    Args:
        spec: the teacher.
        top1: its measured top-1 accuracy in percent.
        classes: number of classes.

    Raises:
        PublishedError: as `below_published_text`.
    """
    warnings = (poor_accuracy_text(top1, classes), below_published_text(spec, top1))
    return [warning for warning in warnings if warning]
