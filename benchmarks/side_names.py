"""The sides of a benchmark: their names, builders and interface.

Each side runs in its own process (`benchmarks.side_process`, `benchmarks.sides.worker`). Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from benchmarks.cases import SideOptions

OURS, LIVE, PLAIN, MDISTILLER = "skd", "skd-live", "plain", "mdistiller"
SIDES = (OURS, LIVE, PLAIN, MDISTILLER)
SIDES_WITH_VARIANTS = (OURS, LIVE)  # built for a variant and a number of lanes

# Builders `build(case: BenchmarkCase, options: SideOptions) -> BenchmarkSide`, as module:function.
BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        OURS: "benchmarks.sides.skd_side:build",
        LIVE: "benchmarks.sides.skd_side:build",  # with options.teacher == "live"
        PLAIN: "benchmarks.sides.plain_loop:build",
        MDISTILLER: "benchmarks.sides.mdistiller:build",
    }
)
# Functions `f(case, options) -> dict` that are called once in a process, without a side.
MEASURE_PEAK = "benchmarks.sides.hardware_peak:measure_peak"
MEASURE_VIEWS = "benchmarks.sides.skd_side:measure_views"


class BenchmarkSide(Protocol):
    """A training implementation that can train any number of steps.

    A builder raises `UnfitError` if the side has no such method or network. The benchmark reports
    this and does not treat it as an error. Every other exception is an error.
    """

    def rebuild(self, options: SideOptions) -> None:
        """Build the side again with other options. Called only for `OURS` and `LIVE`.

        Raises:
            UnfitError: the options are not possible on this device. Others may be tried next.
        """

    def step(self) -> None:
        """Train one step on each lane: views, losses, gradients, the optimiser, the metrics."""

    def evaluate(self) -> None:
        """Evaluate each lane on all test images, as after an epoch."""

    def synchronise(self) -> None:
        """Wait until the device has finished all work."""

    def peak_memory(self) -> int:
        """Return the peak memory in bytes since building; see `benchmarks.sides.side_base`."""

    def describe(self) -> dict[str, Any]:
        """Return how the side trains, as plain data.

        The benchmark uses ``teacher`` (``live``, ``views`` or ``none``: whether the teacher's
        forward pass is part of a step), ``lanes`` (default 1) and ``precision`` (default
        ``float32``; or ``tf32``, ``bfloat16``, ``float16``: selects the hardware's peak). The other
        keys are only printed and stored.
        """
