"""What is decided once, at a run's first step: which of its passes are compiled, and which kernels.

The decision rests on all steps of the run, never on those that are left, so that a resumed run
would decide alike; it is stored all the same (`skd.training.execution.save_execution`).
"""

from __future__ import annotations

from dataclasses import dataclass

from skd.common.choices import COMPILE_STEPS, FastPathMode
from skd.kernels.tables import find_table
from skd.training.execution import Execution, ExecutionError, gpu_model


@dataclass(frozen=True)
class FastPaths:
    """The user's choices for paths that are not bit-identical to the plain one.

    Attributes:
        compile: whether passes go through torch.compile. auto: on a GPU, in runs of many steps.
        compile_steps: the steps of a whole run from which on auto compiles.
        kernels: whether convolutions use this project's kernels where a table says that they are
            faster. auto: where passes are compiled, on a GPU that has a table.
    """

    compile: FastPathMode = "auto"
    compile_steps: int = COMPILE_STEPS
    kernels: FastPathMode = "auto"


def check_fast_paths(execution: Execution, requested: FastPaths) -> None:
    """Refuse what no run could be executed with, before any is begun.

    Raises:
        ExecutionError: passes or kernels are always wanted, and steps are plain, or there is no
            table of kernels for this device.
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
    execution: Execution, requested: FastPaths, steps: int, whole_batches: bool
) -> Execution:
    """Return an execution with its passes and kernels decided.

    Args:
        execution: of a run that is begun now.
        requested: what the user asked for.
        steps: of the whole run.
        whole_batches: whether a batch is neither divided nor grouped, and its images lie on the device.

    Raises:
        ExecutionError: what was asked for is not possible.
        KernelsError: the GPU's table of kernels cannot be read.
    """
    check_fast_paths(execution, requested)
    possible = execution.step != "plain" and whole_batches
    if not possible and "always" in (requested.compile, requested.kernels):
        raise ExecutionError(
            "passes are compiled, and kernels used, only for whole batches of images that lie on "
            "the device, without groups of BatchNorm"
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
    """Return the execution to use after a compiler has failed: no code is generated."""
    changes = {"compiled": False, "kernels": None, "gpu": None, "not_compiled": reason}
    return execution.model_copy(update=changes)
