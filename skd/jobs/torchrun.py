"""How a training is started in several processes. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import PositiveInt

from skd.common.frozen import FrozenModel
from skd.planning.devices import PlannedDevice
from skd.study.expansion import Expansion
from skd.study.sheet_files import StudyError

SAVING_SECONDS = 300


class ParallelConfig(FrozenModel):
    """How each run of a study is trained, as the workflow's configuration says."""

    processes_per_run: PositiveInt = 1
    accumulate: PositiveInt = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Literal["auto", "always", "never"] = "auto"
    kernels: Literal["auto", "always", "never"] = "auto"

    def on(self, device: PlannedDevice) -> PlannedDevice:
        """Return what a plan is made for, so many of a device for each run."""
        return replace(device, processes=self.processes_per_run, accumulate=self.accumulate)

    def check(self, expansion: Expansion) -> None:
        """Refuse a study with a run that cannot be divided so, before anything is submitted.

        Raises:
            StudyError: names the run, and what is allowed.
        """
        parts = self.processes_per_run * self.accumulate
        for cell in expansion.cells:
            if reason := cell.spec.recipe.partition_problem(parts):
                raise StudyError(
                    f"{expansion.study}: {cell.key} in {self.processes_per_run} processes "
                    f"(processes_per_run), in {self.accumulate} parts each (accumulate): {reason}"
                )

    @property
    def options(self) -> str:
        """What `skd job` is told."""
        return (
            f"--processes {self.processes_per_run} --accumulate {self.accumulate}"
            f" --precision {self.precision} --compile {self.compile} --kernels {self.kernels}"
        )


def torchrun_command(arguments: Sequence[str], processes: int) -> list[str]:
    """Return the command line that runs `skd` in processes which train each run together.

    Args:
        arguments: of `skd`.
        processes: on this machine, by torchrun; one needs none.
    """
    if processes == 1:
        return [sys.executable, "-m", "skd", *arguments]
    # So long to save; older versions know neither this nor an option for it.
    settings = [f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT={SAVING_SECONDS}", "OMP_NUM_THREADS=1"]
    torchrun = ["env", *settings, sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(processes), "--module", "skd", *arguments]
