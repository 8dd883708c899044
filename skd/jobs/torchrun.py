"""The command that trains a run in several processes. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

SAVING_SECONDS = 300


def torchrun_command(arguments: Sequence[str], processes: int) -> list[str]:
    """Return the command that runs `skd` in one process, or with torchrun in several.

    Args:
        arguments: the arguments of `skd`.
        processes: the number of processes that train each run together on this machine.
    """
    if processes == 1:
        return [sys.executable, "-m", "skd", *arguments]
    # Time for saving after SIGTERM. Older versions of torchrun have no option for it.
    settings = [f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT={SAVING_SECONDS}", "OMP_NUM_THREADS=1"]
    torchrun = ["env", *settings, sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(processes), "--module", "skd", *arguments]
