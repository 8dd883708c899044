"""Fast paths of a run: whether its forward passes are compiled, and which kernels it uses.

They are decided once, before the first step, from the number of steps of the whole run, and then
saved (`skd.training.execution.save_execution`).
"""

from __future__ import annotations

from dataclasses import dataclass

from skd.common.choices import COMPILE_STEPS, FastPathMode
from skd.kernels.tables import find_table
from skd.training.execution import Execution, ExecutionError, gpu_model


@dataclass(frozen=True)
class FastPaths:
    """The user's choices for code paths whose results differ from the plain path by rounding.

    Attributes:
        compile: whether forward passes go through torch.compile. auto: in runs of many steps on a
            GPU.
        compile_steps: with auto, runs of at least this number of steps are compiled.
        kernels: whether convolutions use this project's kernels, if a table says that they are
            faster. auto: in compiled runs, on a GPU that has a table.
    """

    compile: FastPathMode = "auto"
    compile_steps: int = COMPILE_STEPS
    kernels: FastPathMode = "auto"


def check_fast_paths(execution: Execution, requested: FastPaths) -> None:
    """Refuse choices that no run can be executed with, before any run starts.

    Raises:
        ExecutionError: "always" was chosen, and steps are plain, or this device has no table of
            kernels.
        KernelsError: the GPU's table of kernels cannot be read.
    """
    if execution.step == "plain" and "always" in (requested.compile, requested.kernels):
        raise ExecutionError(
            "plain steps are neither compiled nor do they use the kernels: choose --step fast or "
            "eager, or leave out --compile always and --kernels always"
        )
    if requested.kernels != "always":
        return
    if execution.device == "cpu":
        raise ExecutionError("--kernels always: the kernels run on a GPU only")
    if find_table(gpu_model() or "") is None:
        raise ExecutionError(
            f"no table of kernels was measured for {gpu_model()}: skd tune-kernels makes one"
        )


def decide_fast_paths(
    execution: Execution, requested: FastPaths, steps: int, compilable: bool
) -> Execution:
    """Return an execution with its fast paths.

    Args:
        execution: of a new run.
        requested: the user's choices.
        steps: number of steps of the whole run.
        compilable: whether passes can be compiled: batches are neither divided nor normalised in
            groups, and images are on the device.

    Raises:
        ExecutionError: a choice of "always" is not possible.
        KernelsError: the GPU's table of kernels cannot be read.
    """
    check_fast_paths(execution, requested)
    possible = execution.step != "plain" and compilable
    if not possible and "always" in (requested.compile, requested.kernels):
        raise ExecutionError(
            "compiling and the kernels need undivided batches, images on the device, and a recipe "
            "without bn_batch"
        )
    long = execution.device == "cuda" and steps >= requested.compile_steps
    compiled = possible and (
        requested.compile == "always" or (requested.compile == "auto" and long)
    )
    gpu = gpu_model() if execution.device == "cuda" else None
    table = None
    if requested.kernels == "always" or (requested.kernels == "auto" and compiled):
        table = find_table(gpu) if gpu else None
    return execution.model_copy(
        update={
            "compiled": compiled,
            "kernels": table and table.name,
            "gpu": gpu if compiled or table else None,
        }
    )


def without_compiler(execution: Execution, reason: str) -> Execution:
    """Return the execution after a failure of the compiler: no code is generated."""
    changes = {"compiled": False, "kernels": None, "gpu": None, "not_compiled": reason}
    return execution.model_copy(update=changes)
