"""All checks of a study, in the order in which a reader should see what they find."""

from __future__ import annotations

from collections.abc import Sequence

from report.frames.cells import PairFinding
from report.frames.outcomes import collapsed_runs
from report.frames.study_frames import Frames
from report.names import Names
from report.sanity.accuracies import equal_methods, few_seeds, students_at_chance, wide_spread
from report.sanity.doubts import Doubt
from report.sanity.origins import (
    contradicted_records,
    pooled_code,
    pooled_machines,
    pooled_teachers,
)
from report.sanity.simplifiers import collapsed_simplifiers, unmoved_simplifiers
from report.sanity.teachers import doubtful_teachers, students_above_teachers
from skd.analyses.consistency import RecordChecks
from skd.study.expansion import Expansion

SEVERITIES = ("fatal", "caution", "note")


def check_study(
    expansion: Expansion,
    frames: Frames,
    pairs: Sequence[PairFinding],
    checks: RecordChecks,
    names: Names,
) -> tuple[Doubt, ...]:
    """Return the reasons to doubt a study's results, the most serious first."""
    images, methods = expansion.images, expansion.methods
    collapsed = frozenset(collapsed_runs(frames)["id"])
    doubts = (
        *doubtful_teachers(frames, pairs, images.classes, names),
        *students_at_chance(pairs, images.classes, images.test_images, names),
        *equal_methods(pairs, names),
        *students_above_teachers(pairs, names),
        *collapsed_simplifiers(frames, names),
        *unmoved_simplifiers(frames, expansion, names),
        *wide_spread(pairs, images.test_images, collapsed, names),
        *contradicted_records(checks, expansion),
        *pooled_teachers(pairs, names),
        *few_seeds(pairs, methods, len(expansion.seeds)),
        *pooled_code(frames, names),
        *pooled_machines(frames),
    )
    return tuple(sorted(doubts, key=lambda doubt: SEVERITIES.index(doubt.severity)))
