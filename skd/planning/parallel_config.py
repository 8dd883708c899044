"""How the workflow trains each run: processes, parts of a batch, precision, logs. No torch."""

from __future__ import annotations

import shlex
from dataclasses import replace

from pydantic import PositiveInt

from skd.common.choices import FastPathMode, Precision, RunLog
from skd.common.extras import require_extra
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
    run_log: RunLog = "none"
    run_log_dir: str | None = None

    def apply_to(self, device: PlannedDevice) -> PlannedDevice:
        """Return the device with these numbers of processes and of parts."""
        return replace(device, processes=self.processes_per_run, accumulate=self.accumulate)

    def check(self, expansion: Expansion) -> None:
        """Check that the batches of all runs can be divided into these parts, and logs written.

        Raises:
            StudyError: a run's batch cannot be divided; names the run and the allowed numbers. Or
                there is a folder for logs, but no log.
            MissingExtraError: the package of the runs' log is not installed.
        """
        if self.run_log == "tensorboard":
            require_extra("tensorboard", "run_log: tensorboard")
        elif self.run_log_dir:
            raise StudyError("run_log_dir has no effect without run_log: tensorboard")
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
        folder = f" --run-log-dir {shlex.quote(self.run_log_dir)}" if self.run_log_dir else ""
        log = "" if self.run_log == "none" else f" --run-log {self.run_log}{folder}"
        return (
            f"--processes {self.processes_per_run} --accumulate {self.accumulate}"
            f" --precision {self.precision} --compile {self.compile} --kernels {self.kernels}{log}"
        )
