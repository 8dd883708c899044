"""The sides of a comparison: what each is, who builds it, what it must be able to do.

Imports no torch. Each side lives in a process of its own (`benchmarks.side_process`, `.worker`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from benchmarks.cases import SideOptions

OURS, LIVE, PLAIN, MDISTILLER = "skd", "skd-live", "plain", "mdistiller"
SIDES = (OURS, LIVE, PLAIN, MDISTILLER)
SIDES_WITH_VARIANTS = (OURS, LIVE)  # built by a variant and a number of lanes

# Each side's `build(case: Case, options: Options) -> Side`, in its process, as module:function.
BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        OURS: "benchmarks.sides.skd_side:build",
        LIVE: "benchmarks.sides.skd_side:build",  # the same with options.teacher == "live"
        PLAIN: "benchmarks.sides.plain_loop:build",
        MDISTILLER: "benchmarks.sides.mdistiller:build",
    }
)
# What is measured once, alone: `f(case, options) -> dict`.
MEASURE_PEAK = "benchmarks.sides.hardware_peak:measure"
MEASURE_VIEWS = "benchmarks.sides.skd_side:measure_views"


class BenchmarkSide(Protocol):
    """One way to train, at some step of an endless training.

    A side that has no such method or network raises `UnfitError` when it is built: that is told,
    and is no fault. Anything else it raises is.
    """

    def rebuild(self, options: SideOptions) -> None:
        """Let go of what was built, and be built by other options; only asked of `OURS`.

        Raises:
            UnfitError: these options cannot be had here; others may be asked for afterwards.
        """

    def step(self) -> None:
        """Train one step on each lane: views, losses, gradients, the optimiser, the metrics."""

    def evaluate(self) -> None:
        """Evaluate each lane on all test images, as after an epoch."""

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""

    def peak_memory(self) -> int:
        """Return the most bytes held since the side was built: see `benchmarks.sides.side_base`."""

    def describe(self) -> dict[str, Any]:
        """Return how it trains, as plain data.

        Read of it are ``teacher`` (``live``, ``views`` or ``none``: whether its forward pass is
        part of a step), ``lanes`` (1) and ``precision`` (``float32``; or ``tf32``, ``bfloat16``,
        ``float16``: what the share of the peak refers to). The rest is shown and stored.
        """
