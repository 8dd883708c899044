"""The number of runs that share a device. Imports no torch."""

from __future__ import annotations

from skd.common.errors import SkdError
from skd.planning.slowdown import slowdown

MAX_LANES = 16
SPEED_SHARE = 0.95  # of the speed that any number of lanes reaches
# Lanes replay CUDA graphs, which takes little Python time: they share a few cores.
LANE_CORES = 4


def parse_side_by_side(text: str) -> int | None:
    """Return the number that a user chose; ``None`` for `auto`.

    Raises:
        SkdError: the text is neither a number from 1 nor auto.
    """
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise SkdError(f"side by side must be auto or a whole number of at least 1, got '{text}'")
    return int(text)


def useful_lanes(utilisation: float) -> int:
    """Return the smallest number of lanes that reaches 95 % of the largest total speed; at most 16.

    k lanes together are k / `slowdown` times as fast as one. The limit for many lanes is 1 / u.

    Args:
        utilisation: u, the share of the GPU's time that one run alone uses, in (0, 1].
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
    """Return how many runs of a job are trained side by side.

    On a GPU: as many as its free memory holds, but not more than raise the total speed. On a CPU:
    one, which uses its cores. Each further attempt has half as many, in case the one before ran
    out of memory.

    Args:
        requested: the user's choice, or ``None``.
        runs: how many runs are unfinished.
        free_bytes: the GPU's free memory; 0 without a GPU.
        bytes_each: the device memory that one run needs.
        utilisation_each: the share of the GPU's time that one run alone uses, in (0, 1]; 1 if it
            was not measured.
        attempt: the number of the job's attempt, from 1.
    """
    if requested is None and not free_bytes:
        return 1
    if requested is None:
        requested = min(int(0.9 * free_bytes / bytes_each), useful_lanes(utilisation_each))
    return max(1, min(requested, runs) // 2 ** (attempt - 1))
