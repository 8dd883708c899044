"""How many runs share a device."""

from __future__ import annotations

from skd.jobs.gpu import GpuState


def runs_side_by_side(
    asked: int | None,
    runs: int,
    gpu: GpuState | None,
    memory_each: int,
    utilisation_each: float,
    attempt: int = 1,
) -> int:
    """Return how many runs of a job are trained at once.

    As many as the GPU's free memory holds, and no more than keep it busy: beyond that each would
    only be slower. On a CPU, whose cores one run uses, one at a time. Each further attempt has half
    as many, in case the one before ran out of memory.

    Args:
        asked: the user's choice, or none.
        runs: how many are left to train.
        gpu: the GPU, or none.
        memory_each: bytes of device memory that one run needs.
        utilisation_each: the share of the GPU's time that one run uses alone, in (0, 1].
        attempt: the job's, from 1.
    """
    if asked is None and gpu is None:
        return 1
    if asked is None:
        by_memory = int(0.9 * gpu.free_bytes // memory_each)
        by_speed = round(1 / utilisation_each)
        asked = min(by_memory, by_speed)
    return max(1, min(asked, runs) // 2 ** (attempt - 1))
