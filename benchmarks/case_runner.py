"""One case, measured: its sides built, evaluated in turn, stepped in turn. Imports no torch."""

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

LEAD = 1  # untimed steps before a round's: caches and clocks are another side's after its turn
TIME_IS_UP = "not measured: time is up"


@dataclass(frozen=True)
class MeasurementPlan:
    """How much is measured of each side.

    Attributes:
        rounds: in each of which every side has one turn.
        steps: timed in a turn.
        warmup: steps before the first round.
        evaluations: of the test images.
        turn_seconds: after which a turn may end before all its steps are done; none: never.
    """

    rounds: int
    steps: int
    warmup: int
    evaluations: int
    turn_seconds: float | None = None

    def turns(self, groups: Sequence[Mapping[str, SideOptions]]) -> int:
        """Return how many turns a case takes: what a progress bar counts."""
        built = {
            (side, options.variant, options.lanes)
            for group in groups
            for side, options in group.items()
        }
        stepped = sum(len(group) for group in groups)
        return (2 + self.evaluations) * len(built) + (1 + self.rounds) * stepped


@dataclass
class SideMeasurement:
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
        variant: of ours.
        lanes: that were asked for.
        plain_rounds: seconds a step of the plain loop in the same rounds, where it was measured.
        late: time was up, and there are no further turns.
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
        """How a person names it."""
        variant = f" {self.variant}" if self.variant else ""
        lanes = f" in {self.lanes} lanes" if (self.lanes or 1) > 1 else ""
        return f"{self.side}{variant}{lanes}"


def measurement_groups(
    sides: Mapping[str, SideOptions], variants: Sequence[str], lanes: Sequence[int | None]
) -> list[dict[str, SideOptions]]:
    """Return which sides are measured in turns with each other, group after group.

    Our side is in every group, each time in another variant or with other lanes, and so is the
    plain loop, which it is compared with; all other sides are in the first group only.

    Args:
        sides: by name, with options that name no variant and no lanes.
        variants: of ours, by name.
        lanes: of ours; none: its own choice.
    """
    found: list[dict[str, SideOptions]] = []
    for variant in variants:
        for count in lanes:
            ours = {"variant": variant, "lanes": count}
            group = {
                side: options.model_copy(update=ours) if side in SIDES_WITH_VARIANTS else options
                for side, options in sides.items()
                if not found or side in (OURS, PLAIN)
            }
            found.append(group)
            if OURS not in sides:
                return found
    return found


def run_case(
    case: BenchmarkCase,
    groups: Sequence[Mapping[str, SideOptions]],
    plan: MeasurementPlan,
    announce: Callable[[str], None] = lambda _: None,
    builders: Mapping[str, str] = BUILDERS,
    limit: TimeLimit = UNLIMITED,
) -> list[SideMeasurement]:
    """Measure one case; a side that fails says why, and the others go on.

    Args:
        case: what to train.
        groups: the sides by name, in the order of the first round, each with its options; those of
            a group take turns. A side with the same options in several groups is one side that goes
            on; with other options it is built again, in the same process. Where ours is among them
            and has a live teacher anyhow, it is not built again as `LIVE`.
        plan: how much.
        announce: called at the beginning of each turn with what is done.
        builders: of each side, as ``module:function``.
        limit: each group has a share of the time by its turns, and fewer rounds where it is short.
    """
    with ExitStack() as stack:
        runner = _CaseRunner(case, plan, announce, builders, limit, stack)
        for number, group in enumerate(groups):
            turns = plan.turns(groups[: number + 1]) - plan.turns(groups[:number])
            left = plan.turns(groups) - plan.turns(groups[:number])
            runner.measure(group, limit.share(left / turns))
        return runner.found


class _CaseRunner:
    """The sides of a case under way: those that have failed have no turn any more."""

    def __init__(
        self,
        case: BenchmarkCase,
        plan: MeasurementPlan,
        tell: Callable[[str], None],
        builders: Mapping[str, str],
        limit: TimeLimit,
        stack: ExitStack,
    ) -> None:
        self.case, self.plan, self.tell, self.builders = case, plan, tell, builders
        self.limit, self.stack = limit, stack
        self.found: list[SideMeasurement] = []
        self.processes: dict[str, SideProcess] = {}
        self.current: dict[str, tuple[SideOptions, SideMeasurement]] = {}

    def measure(self, group: Mapping[str, SideOptions], share: TimeLimit) -> None:
        """Measure the sides of a group in turns, and build first those that are new."""
        for side in [*self.processes]:
            if side not in group:  # its memory is needed
                self.processes.pop(side).close()
        new = [side for side, options in group.items() if self.build(side, options)]
        if not any(self.is_active(side) for side in new):
            return
        sides = [side for side in group if side in self.current]
        for side in new:
            self.turn(side, "warming up", lambda process: process.steps(self.plan.warmup))
        # Rounds come last: they are what there are fewer of where time is short.
        for order in share.while_time_allows(alternation(new, self.plan.evaluations)):
            for side in order:
                seconds = self.turn(side, "evaluating", lambda process: process.evaluate())
                if seconds is not None:
                    self.current[side][1].evaluations.append(seconds)
        orders = alternation(sides, self.plan.rounds)
        for number, order in enumerate(share.while_time_allows(orders), start=1):
            self.round(number, order)
        for side in sides:
            ended = self.turn(side, "finishing", lambda process: process.finish())
            if ended is not None:
                found = self.current[side][1]
                found.how, found.peak_memory_bytes = ended["how"], ended["peak_memory_bytes"]

    def build(self, side: str, options: SideOptions) -> bool:
        """Build a side, unless it goes on as it is or need not be built; return whether it was."""
        before, _ = self.current.get(side, (None, None))
        ours = self.current.get(OURS)
        if before == options:
            return False
        if side == LIVE and ours is not None and ours[1].how.get("teacher") != "views":
            return False
        varied = side in SIDES_WITH_VARIANTS
        found = SideMeasurement(side)
        if varied:
            found.variant, found.lanes = options.variant, options.lanes
        self.found.append(found)
        self.current[side] = options, found
        found.how = self.turn(side, "building", lambda _: self.built(side, options)) or {}
        return True

    def built(self, side: str, options: SideOptions) -> dict[str, Any]:
        """Have a side built, by its process if it has one, and return what it says of itself."""
        if side in self.processes:
            return self.processes[side].rebuild(options)
        process = SideProcess(self.builders[side], self.case, options, self.limit)
        self.processes[side] = self.stack.enter_context(process)
        return process.build()

    def round(self, number: int, order: Sequence[str]) -> None:
        """Let each side have a turn; a round that time has cut short counts for none."""
        took = {
            side: self.turn(
                side,
                f"round {number}",
                lambda process: process.steps(self.plan.steps, LEAD, self.plan.turn_seconds),
            )
            for side in order
        }
        if any(self.current[side][1].time_is_up for side in order):
            return
        for side, seconds in took.items():
            if seconds is not None:
                found = self.current[side][1]
                found.rounds.append(seconds)
                if took.get(PLAIN) is not None:
                    found.plain_rounds.append(took[PLAIN])

    def is_active(self, side: str) -> bool:
        """Whether a side has further turns."""
        _, found = self.current[side]
        return found.failure is None and not found.time_is_up

    def turn(self, side: str, what: str, work: Callable[[SideProcess | None], Any]) -> Any:
        """Return what a side answers; none if it fails, has failed before, or time is up."""
        _, found = self.current[side]
        if not self.is_active(side):
            return None
        if self.limit.over:
            found.time_is_up = True
            return None
        self.tell(f"{self.case.key}: {found.name}, {what}")
        try:
            return work(self.processes.get(side))
        except SideError as error:
            if error.time_is_up:
                found.time_is_up = True
            else:
                found.failure, found.unfit = str(error), error.unfit
                found.traceback = error.traceback
            if not error.process_usable:
                self.processes.pop(side).close()
            return None
