"""Sides that do nothing. They are built in the sides' processes, so this imports no torch."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from benchmarks.case_runner import MeasurementPlan
from benchmarks.cases import BenchmarkCase, SideOptions
from skd.common.errors import UnfitError


class FakeSide:
    """A side that does nothing except the behaviour passed to it."""

    def __init__(self, options: SideOptions, **behaviour: Any) -> None:
        self.how = {"teacher": options.teacher, "lanes": options.lanes or 2, **behaviour}
        self.steps, self.evaluations = 0, 0

    def rebuild(self, options: SideOptions) -> None:
        if options.variant.startswith("kernels"):
            raise UnfitError("there is no such table")
        self.how |= {"process": os.getpid(), "lanes": options.lanes, "variant": options.variant}
        self.steps, self.evaluations = 0, 0

    def step(self) -> None:
        self.steps += 1
        time.sleep(0.001)

    def evaluate(self) -> None:
        self.evaluations += 1
        time.sleep(0.001)

    def synchronise(self) -> None:
        pass

    def peak_memory(self) -> int:
        return 1000

    def describe(self) -> dict[str, Any]:
        return {**self.how, "steps": self.steps, "evaluations": self.evaluations}


def build(case: BenchmarkCase, options: SideOptions) -> FakeSide:
    print("what a library prints is no answer")
    side = FakeSide(options, teacher="live" if options.teacher == "live" else "views")
    if options.variant.startswith("kernels"):
        raise UnfitError("there is no such table")
    return side


def build_unfit(case: BenchmarkCase, options: SideOptions) -> FakeSide:
    raise UnfitError("there is no such method")


def build_broken(case: BenchmarkCase, options: SideOptions) -> FakeSide:
    side = build(case, options)

    def step() -> None:
        side.steps += 1
        if side.steps > 5:
            raise ArithmeticError("the sixth step")

    side.step = step
    return side


def build_sleeping(case: BenchmarkCase, options: SideOptions) -> FakeSide:
    side = build(case, options)
    side.step = lambda: time.sleep(600)
    return side


def build_dying(case: BenchmarkCase, options: SideOptions) -> FakeSide:
    side = build(case, options)
    side.evaluate = lambda: os.kill(os.getpid(), signal.SIGKILL)
    return side


def measure_views(case: BenchmarkCase, options: SideOptions) -> dict[str, Any]:
    return {"views": 25, "images": 80, "seconds": 5.0, "measured_share": 0.5, "bytes": 1000}


PLAN = MeasurementPlan(rounds=3, steps=4, warmup=2, evaluations=2)


FAKES = "tests.builders.bench_sides"
