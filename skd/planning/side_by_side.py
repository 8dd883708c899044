"""How many runs share a device. Imports no torch."""

from __future__ import annotations

from typing import Annotated

import typer

from skd.common.errors import SkdError
from skd.planning.slowdown import slowdown

SideBySideOption = Annotated[
    str, typer.Option(help="runs that share the device: a number; auto: as many as fit a GPU")
]


def parse_side_by_side(text: str) -> int | None:
    """Return the number that a user asked for; none for `auto`.

    Raises:
        SkdError: neither.
    """
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise SkdError(f"side by side: a number from 1, or auto; got '{text}'")
    return int(text)


MAX_LANES = 16
SPEED_SHARE = 0.95  # of the speed that any number of lanes reaches
# Lanes replay recorded steps, which takes next to no Python: they share a few cores.
LANE_CORES = 4


def useful_lanes(utilisation: float) -> int:
    """Return the fewest lanes whose speeds add up to nearly what any number reaches; 16 at most.

    k of them are k / `slowdown` times as fast as one: with ever more lanes 1 / u times.

    Args:
        utilisation: u, the share of the GPU's time that one run uses alone, in (0, 1].
    """
    enough = SPEED_SHARE / utilisation - 1e-9
    speeds = ((lanes, lanes / slowdown(lanes, utilisation)) for lanes in range(1, MAX_LANES))
    return next((lanes for lanes, speed in speeds if speed >= enough), MAX_LANES)


def lane_cores(lanes: int) -> int:
    """Return the cores of a process that trains this number of lanes on a GPU."""
    return min(lanes, LANE_CORES)


def runs_side_by_side(
    requested: int | None,
    runs: int,
    free_bytes: int,
    bytes_each: int,
    utilisation_each: float,
    attempt: int = 1,
) -> int:
    """Return how many runs of a job are trained at once.

    As many as the GPU's free memory holds, and no more than help: beyond that each would only be
    slower. On a CPU, whose cores one run uses, one at a time. Each further attempt has half as
    many, in case the one before ran out of memory.

    Args:
        requested: the user's choice, or none.
        runs: how many are left to train.
        free_bytes: of the GPU's memory; 0 without a GPU.
        bytes_each: of device memory that one run needs.
        utilisation_each: the share of the GPU's time that one run uses alone, in (0, 1]; 1 where
            that was not measured.
        attempt: the job's, from 1.
    """
    if requested is None and not free_bytes:
        return 1
    if requested is None:
        requested = min(int(0.9 * free_bytes / bytes_each), useful_lanes(utilisation_each))
    return max(1, min(requested, runs) // 2 ** (attempt - 1))
