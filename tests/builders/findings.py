"""Findings of made-up pairs, without a store."""

from collections.abc import Mapping

from report.frames.cells import CONTROL, CellFinding, PairFinding, TeacherFinding
from report.statistics.intervals import paired_difference, summarise
from report.statistics.verdicts import judge_published
from skd.study.published import PublishedValue

RESOLUTION = 0.01  # of 10,000 test images


def make_pair(
    accuracies: Mapping[str, list[float] | Mapping[int, float]],
    teacher: str = "resnet56",
    student: str = "resnet20",
    teacher_top1: float | None = 72.0,
    published: Mapping[str, float] | None = None,
    expected: int = 3,
) -> PairFinding:
    """Return a pair with these accuracies by method and seed.

    Args:
        accuracies: a list has the seeds 0, 1, …
        published: published values of five runs with a standard deviation of 0.1, by method.
        expected: number of seeds of the study.
    """
    by_method = {
        method: dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
        for method, values in accuracies.items()
    }
    cells = [
        _make_cell(
            (teacher, student), method, values, by_method, (published or {}).get(method), expected
        )
        for method, values in by_method.items()
    ]
    return PairFinding(
        pair=f"{teacher} → {student}",
        student=student,
        style="same",
        teacher=TeacherFinding(teacher, teacher_top1, None, None),
        cells=tuple(cells),
        comparisons=(),
        best_method=None,
        num_teachers=1,
        resolution=RESOLUTION,
    )


def _make_cell(
    names: tuple[str, str],
    method: str,
    values: Mapping[int, float],
    by_method: Mapping[str, Mapping[int, float]],
    published: float | None,
    expected: int,
) -> CellFinding:
    teacher, student = names
    value = None
    if published is not None:
        value = PublishedValue(
            teacher=teacher,
            student=student,
            method=method,
            top1=published,
            top5=None,
            reported_epoch="last",
            n_runs=5,
            sd=0.1,
            source="made up",
        )
    summary = summarise(values.values(), RESOLUTION)
    gain = paired_difference(values, by_method.get(CONTROL, {}), RESOLUTION)
    top1 = list(values.values())
    return CellFinding(
        pair=f"{teacher} → {student}",
        teacher=teacher,
        student=student,
        method=method,
        has_simplifier=method.startswith("skd"),
        done=len(values),
        expected=expected,
        last=summary,
        best=summary,
        last_by_seed=values,
        top5=summarise([]),
        ids={seed: f"{teacher}-{student}-{method}-{seed}" for seed in range(expected)},
        gain=None if method == CONTROL else gain,
        published=value,
        verdict=judge_published(top1, top1, value, 0.5, RESOLUTION) if value else None,
        marks=(),
    )
