"""How the workflow trains each run: processes, parts of a batch, precision. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from pydantic import PositiveInt

from skd.common.choices import FastPathMode, Precision
from skd.common.frozen import FrozenModel
from skd.planning.devices import PlannedDevice
from skd.study.expansion import Expansion
from skd.study.sheet_files import StudyError


class ParallelConfig(FrozenModel):
    """The keys of the workflow's configuration that say how each run is trained."""

    processes_per_run: PositiveInt = 1
    accumulate: PositiveInt = 1
    precision: Precision = "float32"
    compile: FastPathMode = "auto"
    kernels: FastPathMode = "auto"

    def apply_to(self, device: PlannedDevice) -> PlannedDevice:
        """Return the device with these numbers of processes and of parts."""
        return replace(device, processes=self.processes_per_run, accumulate=self.accumulate)

    def check(self, expansion: Expansion) -> None:
        """Check that the batches of all runs can be divided into these parts.

        Raises:
            StudyError: a run's batch cannot be divided; names the run and the allowed numbers.
        """
        parts = self.processes_per_run * self.accumulate
        for cell in expansion.cells:
            if reason := cell.spec.recipe.partition_problem(parts):
                raise StudyError(
                    f"{expansion.study}: {cell.key} in {self.processes_per_run} processes "
                    f"(processes_per_run), in {self.accumulate} parts each (accumulate): {reason}"
                )

    @property
    def command_options(self) -> str:
        """The options of `skd job train` and `skd job teacher` with these values."""
        return (
            f"--processes {self.processes_per_run} --accumulate {self.accumulate}"
            f" --precision {self.precision} --compile {self.compile} --kernels {self.kernels}"
        )
