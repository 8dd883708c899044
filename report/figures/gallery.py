"""All figures of a report: those over all pairs, and those of each pair.

Importing this module loads no drawing library; `make_gallery` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from report.figures.rendered import RenderedFigure
from report.frames.analysis import StudyAnalysis
from report.frames.cells import PairFinding, anchor
from report.frames.study_frames import Frames
from report.names import Names
from report.statistics.ranks import Ranking
from skd.study.expansion import Expansion


@dataclass(frozen=True)
class PairGallery:
    """The figures of one pair.

    Attributes:
        title: the pair's display name.
        anchor: its id in the page.
        collapsed: whether the pair has collapsed runs.
    """

    pair: str
    title: str
    anchor: str
    collapsed: bool
    drawings: tuple[RenderedFigure, ...]


@dataclass(frozen=True)
class Gallery:
    """All figures by section of the page, and the reasons why some could not be drawn.

    Attributes:
        gains: every method's gain over the student alone, for the first screen.
    """

    gains: tuple[RenderedFigure, ...]
    verdicts: tuple[RenderedFigure, ...]
    ranks: tuple[RenderedFigure, ...]
    overview: tuple[RenderedFigure, ...]
    pairs: tuple[PairGallery, ...]
    problems: tuple[str, ...]

    @property
    def drawings(self) -> list[RenderedFigure]:
        """All figures."""
        of_pairs = [drawing for pair in self.pairs for drawing in pair.drawings]
        return [*self.gains, *self.verdicts, *self.ranks, *self.overview, *of_pairs]


def make_gallery(
    expansion: Expansion,
    frames: Frames,
    pairs: Sequence[PairFinding],
    analyses: StudyAnalysis | None,
    ranking: Ranking | None,
    margin: float,
    names: Names,
    workers: int | None = None,
) -> Gallery:
    """Draw every figure for which there are data.

    Args:
        expansion: the study.
        frames: its tidy frames.
        pairs: its findings.
        analyses: the output of `skd analyse`, or ``None``.
        ranking: the methods' mean ranks, or ``None``.
        margin: margin of equivalence of the verdicts, in points.
        names: what readers call methods and networks.
        workers: number of processes. ``None``: one per CPU for many figures, otherwise one.
    """
    from report.figures.drawing import draw_all
    from report.figures.jobs import gallery_jobs

    jobs = gallery_jobs(expansion, frames, pairs, analyses, ranking, margin, names)
    figures, problems = draw_all(jobs, workers)
    collapsed = set(frames.runs.loc[frames.runs["collapsed"].eq(True), "pair"])
    galleries = (
        PairGallery(
            pair.pair,
            names.pair(pair),
            anchor("figures", pair.teacher.name, pair.student),
            pair.pair in collapsed,
            figures[pair.pair],
        )
        for pair in pairs
    )
    return Gallery(
        figures["gains"],
        figures["verdicts"],
        figures["ranks"],
        figures["overview"],
        tuple(gallery for gallery in galleries if gallery.drawings),
        problems,
    )
