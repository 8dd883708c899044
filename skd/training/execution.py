"""How and where a run is executed. This is not part of its identity."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import torch
from pydantic import PositiveInt

from skd.common import bounds
from skd.common.choices import Precision, StepMode, TeacherSource
from skd.common.errors import SkdError, error_text
from skd.common.files import write_json
from skd.common.frozen import FrozenModel, added_later

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


class ExecutionError(SkdError):
    """A run cannot be executed as requested. Says what to do."""


class Execution(FrozenModel):
    """How a run is executed. It is fixed before the first step, and a resumed run keeps it.

    In a run that was started before a field existed, the field has its neutral value.
    """

    device: Literal["cpu", "cuda"]
    threads: PositiveInt
    step: StepMode = added_later(
        "fast",
        neutral="plain",
        description="fast: channels-last, fused SGD, on a GPU a CUDA graph. eager: all but the "
        "graph. plain: none of these",
    )
    precision: Precision = added_later(
        "float32",
        neutral="float32",
        description="bfloat16: forward passes and losses under autocast; evaluation never is",
    )
    teacher: TeacherSource | None = added_later(
        None,
        neutral="live",
        description="the teacher's outputs: computed in each step (live), or read from its stored "
        "views; null without a teacher",
    )
    compiled: bool = added_later(
        False,
        neutral=False,
        description="whether the networks' forward passes go through torch.compile",
    )
    kernels: str | None = added_later(
        None,
        neutral=None,
        description="the table that says which convolutions use this project's kernels; null: none",
    )
    gpu: str | None = added_later(
        None,
        neutral=None,
        description="the GPU model that the code was compiled or the kernels were chosen for",
    )
    not_compiled: str | None = added_later(
        None,
        neutral=None,
        description="why no code is generated, if that failed",
    )

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of the networks' weights and feature maps."""
        return torch.contiguous_format if self.step == "plain" else torch.channels_last

    def configure_process(self) -> torch.device:
        """Configure torch in this process for the execution; return its device.

        Raises:
            ExecutionError: the run needs a GPU, and this machine has none, or the run needs more
                threads than this machine allows.
        """
        if self.threads > (most := bounds.max_threads()):
            raise ExecutionError(
                f"a run with {self.threads} CPU threads cannot be executed here (at most {most}); "
                "resume it where it was started, or remove its folder to start it again"
            )
        torch.set_num_threads(self.threads)
        if self.device == "cpu":
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise ExecutionError(
                "the run needs a CUDA device, and this machine has none; a run that was started on "
                "a GPU must be resumed on a GPU"
            )
        # Bit-exact resume: no autotuning, no atomics, a fixed workspace for cuBLAS.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        # Deterministic mode fills every new tensor, which is a third of the kernels of a small
        # step. Programs that write a tensor before they read it do not need that.
        torch.utils.deterministic.fill_uninitialized_memory = False
        return torch.device("cuda")


def choose_execution(
    device: str, threads: int | None, step: StepMode = "fast", precision: Precision = "float32"
) -> Execution:
    """Return the execution that a user requests. `auto` uses a GPU if there is one.

    Raises:
        ExecutionError: the device is unknown, torch cannot use the GPU, or an environment variable
            requests more threads than there are cores.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ExecutionError(f"unknown device '{device}'; allowed: auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ExecutionError("--device cuda: torch finds no CUDA device here")
    if device == "auto":
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        expected = torch.version.cuda and NVIDIA_DRIVER.exists() and not hidden
        if expected and not torch.cuda.is_available():
            raise ExecutionError(
                "this machine has an NVIDIA GPU that torch cannot use (see nvidia-smi): repair its "
                "driver, or choose the CPU (--device cpu, or CUDA_VISIBLE_DEVICES= )"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if threads is None and (threads := torch.get_num_threads()) > (most := bounds.core_count()):
        raise ExecutionError(
            f"torch would take {threads} CPU threads, and this machine has {most} cores: set "
            f"OMP_NUM_THREADS and MKL_NUM_THREADS to at most {most}, or give --threads"
        )
    return Execution(device=device, threads=threads, step=step, precision=precision)


def load_execution(folder: Path) -> Execution | None:
    """Return the execution of a run; ``None`` before its first step.

    Raises:
        ExecutionError: the file cannot be read, or the run needs another GPU model.
    """
    path = folder / "execution.json"
    try:
        execution = Execution.restore(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ExecutionError(
            f"{path} cannot be read ({error_text(error)}), so it is unknown how the run was "
            f"started; remove {folder} to start it again"
        ) from error
    if execution.gpu is not None and execution.gpu != (model := gpu_model()):
        raise ExecutionError(
            f"{folder}: this run uses kernels for {execution.gpu}, and this machine has "
            f"{model or 'no GPU'}; resume it on that GPU, or remove its folder to start it again"
        )
    return execution


def save_execution(folder: Path, execution: Execution) -> None:
    """Save the execution of a run. A resumed run keeps it."""
    write_json(folder / "execution.json", execution.model_dump())


def gpu_model() -> str | None:
    """Return the GPU model of this machine; ``None`` without a GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
