"""The base class of sides: synchronisation and peak memory."""

from __future__ import annotations

import contextlib
import multiprocessing
from pathlib import Path

import torch

from skd.training.environment import peak_memory


class SideBase:
    """Implements what all sides have in common."""

    device: torch.device

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int:
        """Return the peak memory in bytes; on a CPU, including a loader's workers."""
        return peak_with_workers(self.device)


def peak_with_workers(device: torch.device) -> int:
    """Return the peak memory of the device's allocator, in bytes.

    On a CPU: the peak of the process plus the current private memory of its children. Memory that
    they share with the process, such as a forked data set, counts once.
    """
    peak = peak_memory(device)
    if device.type == "cuda":
        return peak
    return peak + sum(_private_bytes(child.pid) for child in multiprocessing.active_children())


def _private_bytes(process: int | None) -> int:
    with contextlib.suppress(OSError):  # the process has ended, or the kernel has no such file
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0
