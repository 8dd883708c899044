"""One case, measured: its sides built, stepped in turn, evaluated in turn. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from skd.bench.cases import Case, Options
from skd.bench.measure import alternation
from skd.bench.process import SideError, SideProcess
from skd.bench.sides import BUILDERS, LIVE, OURS

LEAD = 1  # untimed steps before a round's: caches and clocks are another side's after its turn


@dataclass(frozen=True)
class Plan:
    """How much is measured of each side.

    Attributes:
        rounds: in each of which every side has one turn.
        steps: timed in a turn.
        warmup: steps before the first round.
        evaluations: of the test images.
    """

    rounds: int
    steps: int
    warmup: int
    evaluations: int

    def turns(self, sides: int) -> int:
        """Return how many turns a case takes: what a progress bar counts."""
        return sides * (2 + self.rounds + self.evaluations)


@dataclass
class Measured:
    """What came of one side.

    Attributes:
        side: its name.
        how: what it says of itself.
        rounds: seconds a step.
        evaluations: seconds.
        peak_memory_bytes: none until it has finished.
        failure: why it could not be measured.
        unfit: the failure is no fault: it has no such method or network.
        traceback: of an unexpected failure.
    """

    side: str
    how: dict[str, Any] = field(default_factory=dict)
    rounds: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    failure: str | None = None
    unfit: bool = False
    traceback: str | None = None


def run_case(
    case: Case,
    sides: Mapping[str, Options],
    plan: Plan,
    tell: Callable[[str], None] = lambda _: None,
    builders: Mapping[str, str] = BUILDERS,
) -> list[Measured]:
    """Measure one case; a side that fails says why, and the others go on.

    Args:
        case: what to train.
        sides: the sides by name, in the order of the first round, each with its options. Where
            ours is among them and has a live teacher anyhow, it is not built again as `LIVE`.
        plan: how much.
        tell: called at the beginning of each turn with what is done.
        builders: of each side, as ``module:function``.
    """
    with ExitStack() as stack:
        runner = _Runner(case, tell)
        for side, options in sides.items():
            ours = runner.found.get(OURS)
            if side == LIVE and ours is not None and ours.how.get("teacher") != "views":
                continue
            process = stack.enter_context(SideProcess(builders[side], case, options))
            runner.build(side, process)
        names = [*runner.processes]
        for side in names:
            runner.turn(side, "warming up", lambda process: process.steps(plan.warmup))
        for number, order in enumerate(alternation(names, plan.rounds), start=1):
            for side in order:
                seconds = runner.turn(
                    side, f"round {number}", lambda process: process.steps(plan.steps, LEAD)
                )
                if seconds is not None:
                    runner.found[side].rounds.append(seconds / plan.steps)
        for order in alternation(names, plan.evaluations):
            for side in order:
                seconds = runner.turn(side, "evaluating", lambda process: process.evaluate())
                if seconds is not None:
                    runner.found[side].evaluations.append(seconds)
        for side in names:
            runner.finish(side)
        return [*runner.found.values()]


class _Runner:
    """The sides of a case under way: those that have failed have no turn any more."""

    def __init__(self, case: Case, tell: Callable[[str], None]) -> None:
        self.case, self.tell = case, tell
        self.processes: dict[str, SideProcess] = {}
        self.found: dict[str, Measured] = {}

    def build(self, side: str, process: SideProcess) -> None:
        self.found[side] = Measured(side)
        self.processes[side] = process
        how = self.turn(side, "building", lambda process: process.build())
        if how is not None:
            self.found[side].how = how

    def turn(self, side: str, what: str, work: Callable[[SideProcess], Any]) -> Any:
        """Return what a side answers; none if it fails, or has failed before."""
        if self.found[side].failure is not None:
            return None
        self.tell(f"{self.case.key}: {side}, {what}")
        try:
            return work(self.processes[side])
        except SideError as error:
            found = self.found[side]
            found.failure, found.unfit = str(error), error.unfit
            found.traceback = error.traceback
            self.processes[side].close()
            return None

    def finish(self, side: str) -> None:
        ended = self.turn(side, "finishing", lambda process: process.finish())
        if ended is not None:
            self.found[side].how = ended["how"]
            self.found[side].peak_memory_bytes = ended["peak_memory_bytes"]
