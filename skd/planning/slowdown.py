"""The slowdown of runs that share a GPU as lanes of one process. Imports no torch.

docs/planning.md, "Sharing a GPU", describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from skd.planning.timings import Timing, least_shared

MIN_UTILISATION = 0.05


def slowdown(runs: int, utilisation: float) -> float:
    """Return the factor by which each of several similar runs on one device is slower than alone.

    Measurements on a GPU show that each further run lengthens a step of all runs by the same time:
    u times the step of one run alone. With u = 1, as on a CPU, k runs take k times as long.

    Args:
        runs: k, the number of runs.
        utilisation: u, the share of the device's time that one run alone uses, in (0, 1].
    """
    return 1 + (runs - 1) * utilisation


def fitted_utilisation(measured: Mapping[int, float]) -> float | None:
    """Return the utilisation at which `slowdown` fits the measurements best.

    It minimises the squares of the relative errors. The fit is exact for two numbers of runs if
    its result is in the valid range. ``None`` for one number of runs: any utilisation would fit.

    Args:
        measured: the seconds of a step of each run, by the number of runs that shared the device.
    """
    if len(measured) < 2:
        return None
    # A straight line with the value a at one run, and the slope b.
    points = [(runs - 1, seconds, seconds**-2) for runs, seconds in measured.items()]
    w = sum(weight for _, _, weight in points)
    x = sum(weight * more for more, _, weight in points)
    y = sum(weight * seconds for _, seconds, weight in points)
    xx = sum(weight * more**2 for more, _, weight in points)
    xy = sum(weight * more * seconds for more, seconds, weight in points)
    a, b = xx * y - x * xy, w * xy - x * y
    return _bounded(b / a) if a > 0 else 1.0


def seconds_alone(measured: Mapping[int, float], utilisation: float) -> float:
    """Return the seconds of one run alone at which `slowdown` fits the measurements best.

    It minimises the squares of the relative errors. The fit is exact for one number of runs.

    Args:
        measured: the seconds of each run, by the number of runs that shared the device.
        utilisation: the share of the device's time that one run alone uses.
    """
    ratios = [slowdown(runs, utilisation) / seconds for runs, seconds in measured.items()]
    return sum(ratios) / sum(ratio**2 for ratio in ratios)


def measured_utilisation(rows: Sequence[Timing]) -> float | None:
    """Return the utilisation from finished runs of one kind on a GPU; ``None`` if it is unknown."""
    return fitted_utilisation(_by_sharing(rows, lambda row: row.seconds_per_step))


def sampled_utilisation(rows: Sequence[Timing]) -> float | None:
    """Return the utilisation that the driver reported for runs alone on a GPU, or ``None``."""
    shares = [r.gpu_utilisation / 100 for r in rows if r.gpu_utilisation and r.sharing == 1]
    return _bounded(fmean(shares)) if shares else None


def measured_seconds_alone(
    rows: Sequence[Timing], seconds: Callable[[Timing], float], utilisation: float
) -> float:
    """Return the seconds of a run alone, from finished runs of its kind.

    Runs that share a CPU have their own cores: there, it is the mean of the runs that shared it
    least.

    Args:
        rows: at least one timing, all of one device.
        seconds: returns the seconds of one timing.
        utilisation: the share of a GPU's time that one run alone uses.
    """
    if rows[0].kind == "cpu":
        return fmean(map(seconds, least_shared(rows)))
    return seconds_alone(_by_sharing(rows, seconds), utilisation)


def _by_sharing(rows: Sequence[Timing], seconds: Callable[[Timing], float]) -> dict[int, float]:
    """Return the mean seconds by the number of runs that shared the device."""
    groups: dict[int, list[float]] = {}
    for row in rows:
        groups.setdefault(row.sharing, []).append(seconds(row))
    return {runs: fmean(values) for runs, values in groups.items()}


def _bounded(share: float) -> float:
    return min(1.0, max(MIN_UTILISATION, share))
