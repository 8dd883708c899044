"""Measures one case: builds its sides and times their steps and evaluations in turns.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.arithmetic import alternation
from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.side_names import BUILDERS, LIVE, OURS, PLAIN, SIDES_WITH_VARIANTS
from benchmarks.side_process import SideError, SideProcess
from benchmarks.time_limit import UNLIMITED, TimeLimit

LEAD = 1  # untimed steps at the start of a turn: the previous side has changed caches and clocks
TIME_IS_UP = "not measured: time is up"


@dataclass(frozen=True)
class MeasurementPlan:
    """How much is measured of each side.

    Attributes:
        rounds: number of rounds; every side has one turn in each round.
        steps: number of timed steps in a turn.
        warmup: number of steps before the first round.
        evaluations: number of evaluations on the test images.
        turn_seconds: time after which a turn may end before all its steps; ``None``: no limit.
    """

    rounds: int
    steps: int
    warmup: int
    evaluations: int
    turn_seconds: float | None = None

    def turns(self, groups: Sequence[Mapping[str, SideOptions]]) -> int:
        """Return the number of turns of a case, which the progress bar counts."""
        built = {
            (side, options.variant, options.lanes)
            for group in groups
            for side, options in group.items()
        }
        stepped = sum(len(group) for group in groups)
        return (2 + self.evaluations) * len(built) + (1 + self.rounds) * stepped


@dataclass
class SideMeasurement:
    """The measurement of one side.

    Attributes:
        side: its name.
        how: its description of itself.
        rounds: seconds per step in each round.
        evaluations: seconds of each evaluation.
        peak_memory_bytes: ``None`` until it has finished.
        failure: why it could not be measured, or ``None``.
        unfit: the failure is not an error: the side has no such method or network.
        traceback: of an unexpected failure.
        variant: the variant of our side.
        lanes: the requested number of lanes.
        plain_rounds: seconds per step of the plain loop in the same rounds, if it was measured.
        time_is_up: the time limit was reached, and there are no further turns.
    """

    side: str
    how: dict[str, Any] = field(default_factory=dict)
    rounds: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    failure: str | None = None
    unfit: bool = False
    traceback: str | None = None
    variant: str | None = None
    lanes: int | None = None
    plain_rounds: list[float] = field(default_factory=list)
    time_is_up: bool = False

    @property
    def skipped(self) -> bool:
        """Whether time was up before its first round."""
        return self.time_is_up and not self.rounds and self.failure is None

    @property
    def name(self) -> str:
        """Its label in messages."""
        variant = f" {self.variant}" if self.variant else ""
        lanes = f" in {self.lanes} lanes" if (self.lanes or 1) > 1 else ""
        return f"{self.side}{variant}{lanes}"


def measurement_groups(
    sides: Mapping[str, SideOptions], variants: Sequence[str], lanes: Sequence[int | None]
) -> list[dict[str, SideOptions]]:
    """Return groups of sides. The sides of a group are measured in turns.

    Every group contains our side, each time with another variant or number of lanes, and the plain
    loop, which it is compared with. The other sides are only in the first group.

    Args:
        sides: options by side, without a variant and a number of lanes.
        variants: the variants of our side.
        lanes: the numbers of lanes of our side; ``None``: the side's default.
    """
    groups: list[dict[str, SideOptions]] = []
    for variant in variants:
        for count in lanes:
            ours = {"variant": variant, "lanes": count}
            group = {
                side: options.model_copy(update=ours) if side in SIDES_WITH_VARIANTS else options
                for side, options in sides.items()
                if not groups or side in (OURS, PLAIN)
            }
            groups.append(group)
            if OURS not in sides:
                return groups
    return groups


def run_case(
    case: BenchmarkCase,
    groups: Sequence[Mapping[str, SideOptions]],
    plan: MeasurementPlan,
    announce: Callable[[str], None] = lambda _: None,
    builders: Mapping[str, str] = BUILDERS,
    limit: TimeLimit = UNLIMITED,
) -> list[SideMeasurement]:
    """Measure one case. A side that fails gets a reason, and the other sides continue.

    Args:
        case: the case to measure.
        groups: options by side, in the order of the first round. The sides of a group take turns.
            A side with the same options in several groups is built once. With other options it is
            built again in the same process. `LIVE` is not built if our side has a live teacher.
        plan: the number of rounds, steps and evaluations.
        announce: called at the start of each turn with a description.
        builders: each side's builder, as ``module:function``.
        limit: shared between the groups by their numbers of turns. A group has fewer rounds if
            its time is short.
    """
    with ExitStack() as stack:
        runner = _CaseRunner(case, plan, announce, builders, limit, stack)
        for number, group in enumerate(groups):
            turns = plan.turns(groups[: number + 1]) - plan.turns(groups[:number])
            remaining = plan.turns(groups) - plan.turns(groups[:number])
            runner.measure(group, limit.share(remaining / turns))
        return runner.measurements


class _CaseRunner:
    """Measures the sides of one case. A failed side has no further turns."""

    def __init__(
        self,
        case: BenchmarkCase,
        plan: MeasurementPlan,
        announce: Callable[[str], None],
        builders: Mapping[str, str],
        limit: TimeLimit,
        stack: ExitStack,
    ) -> None:
        self.case, self.plan, self.announce, self.builders = case, plan, announce, builders
        self.limit, self.stack = limit, stack
        self.measurements: list[SideMeasurement] = []
        self.processes: dict[str, SideProcess] = {}
        self.current: dict[str, tuple[SideOptions, SideMeasurement]] = {}

    def measure(self, group: Mapping[str, SideOptions], share: TimeLimit) -> None:
        """Build the new sides of a group, then measure all its sides in turns."""
        for side in [*self.processes]:
            if side not in group:  # free its memory
                self.processes.pop(side).close()
        new = [side for side, options in group.items() if self.build(side, options)]
        if not any(self.is_active(side) for side in new):
            return
        sides = [side for side in group if side in self.current]
        for side in new:
            self.turn(side, "warming up", lambda process: process.time_steps(self.plan.warmup))
        # The rounds come last, because their number is reduced if time is short.
        for order in share.while_time_allows(alternation(new, self.plan.evaluations)):
            for side in order:
                seconds = self.turn(side, "evaluating", lambda process: process.time_evaluation())
                if seconds is not None:
                    self.current[side][1].evaluations.append(seconds)
        orders = alternation(sides, self.plan.rounds)
        for number, order in enumerate(share.while_time_allows(orders), start=1):
            self.round(number, order)
        for side in sides:
            answer = self.turn(side, "finishing", lambda process: process.finish())
            if answer is not None:
                measurement = self.current[side][1]
                measurement.how = answer["how"]
                measurement.peak_memory_bytes = answer["peak_memory_bytes"]

    def build(self, side: str, options: SideOptions) -> bool:
        """Build a side unless it exists with the same options or is redundant.

        Returns whether it was built.
        """
        previous, _ = self.current.get(side, (None, None))
        ours = self.current.get(OURS)
        if previous == options:
            return False
        if side == LIVE and ours is not None and ours[1].how.get("teacher") != "views":
            return False
        measurement = SideMeasurement(side)
        if side in SIDES_WITH_VARIANTS:
            measurement.variant, measurement.lanes = options.variant, options.lanes
        self.measurements.append(measurement)
        self.current[side] = options, measurement
        measurement.how = (
            self.turn(side, "building", lambda _: self._build_in_process(side, options)) or {}
        )
        return True

    def _build_in_process(self, side: str, options: SideOptions) -> dict[str, Any]:
        """Build a side, in its process if it has one, and return its description of itself."""
        if side in self.processes:
            return self.processes[side].rebuild(options)
        process = SideProcess(self.builders[side], self.case, options, self.limit)
        self.processes[side] = self.stack.enter_context(process)
        return process.build()

    def round(self, number: int, order: Sequence[str]) -> None:
        """Measure a turn of each side. A round that the time limit cuts short is ignored."""
        seconds_by_side = {
            side: self.turn(
                side,
                f"round {number}",
                lambda process: process.time_steps(self.plan.steps, LEAD, self.plan.turn_seconds),
            )
            for side in order
        }
        if any(self.current[side][1].time_is_up for side in order):
            return
        plain_seconds = seconds_by_side.get(PLAIN)
        for side, seconds in seconds_by_side.items():
            if seconds is not None:
                measurement = self.current[side][1]
                measurement.rounds.append(seconds)
                if plain_seconds is not None:
                    measurement.plain_rounds.append(plain_seconds)

    def is_active(self, side: str) -> bool:
        """Whether a side has further turns."""
        _, measurement = self.current[side]
        return measurement.failure is None and not measurement.time_is_up

    def turn(self, side: str, activity: str, work: Callable[[SideProcess | None], Any]) -> Any:
        """Return a side's answer; ``None`` if it fails, has failed before, or time is up."""
        _, measurement = self.current[side]
        if not self.is_active(side):
            return None
        if self.limit.is_over:
            measurement.time_is_up = True
            return None
        self.announce(f"{self.case.key}: {measurement.name}, {activity}")
        try:
            return work(self.processes.get(side))
        except SideError as error:
            if error.time_is_up:
                measurement.time_is_up = True
            else:
                measurement.failure, measurement.unfit = str(error), error.unfit
                measurement.traceback = error.traceback
            if not error.process_usable:
                self.processes.pop(side).close()
            return None
