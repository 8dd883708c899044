"""The peak memory of a side, its loader's workers included."""

from __future__ import annotations

import contextlib
import multiprocessing
from pathlib import Path

import torch

from skd.training.execution import peak_memory


class SideBase:
    """What every side does alike: waiting for its device, and its peak memory."""

    device: torch.device

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int:
        """Return the peak in bytes, a loader's workers included on a CPU."""
        return peak_with_workers(self.device)


def peak_with_workers(device: torch.device) -> int:
    """Return the peak of what the device's allocator held, in bytes.

    On a CPU: the peak of the process, and what its children hold of their own now. What they share
    with it, as a forked data set, counts once.
    """
    peak = peak_memory(device)
    if device.type == "cuda":
        return peak
    return peak + sum(_own_bytes(child.pid) for child in multiprocessing.active_children())


def _own_bytes(process: int | None) -> int:
    with contextlib.suppress(OSError):  # it has ended, or the kernel does not tell
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0
