"""The variants of our side: ways to compute the same step. Imports no torch at import time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from skd.common.errors import UnfitError, UnknownNameError

if TYPE_CHECKING:
    from skd.common.choices import Precision, StepMode
    from skd.training.execution import Execution

DEFAULT_VARIANT = "recorded"


class StepVariant(NamedTuple):
    """The settings of `skd.training.execution.Execution` that differ between variants."""

    step: StepMode
    compiled: bool = False
    kernels: bool = False
    precision: Precision = "float32"


_FLOAT32 = {
    "eager": StepVariant("eager"),
    "recorded": StepVariant("fast"),
    "compiled": StepVariant("fast", compiled=True),
    "kernels": StepVariant("fast", compiled=True, kernels=True),
}
VARIANTS: Mapping[str, StepVariant] = MappingProxyType(
    _FLOAT32
    | {
        f"{name}-bfloat16": variant._replace(precision="bfloat16")
        for name, variant in _FLOAT32.items()
    }
)


def variant_named(name: str) -> StepVariant:
    """Return a variant by its name.

    Raises:
        UnknownNameError: there is no such variant.
    """
    if name not in VARIANTS:
        raise UnknownNameError("variant", name, VARIANTS)
    return VARIANTS[name]


def variant_execution(name: str, place: Execution) -> Execution:
    """Return the execution of a variant.

    Args:
        name: the variant's name.
        place: an execution with the device and the threads.

    Raises:
        UnknownNameError: there is no such variant.
        UnfitError: it needs a kernel table, and none was measured on this GPU.
    """
    variant = variant_named(name)
    changes: dict[str, Any] = {"step": variant.step, "precision": variant.precision}
    if variant.compiled:
        gpu = _gpu() if place.device == "cuda" else None
        changes |= {"compiled": True, "gpu": gpu}
        if variant.kernels:
            changes["kernels"] = _table(gpu)
    return place.model_copy(update=changes)


def train_choice(place: Execution, steps: int) -> str:
    """Return the name of the variant that `skd train` would choose by default.

    Args:
        place: an execution with the device and the threads.
        steps: number of steps of the whole run.
    """
    from skd.training.fast_paths import FastPaths, decide_fast_paths

    decided = decide_fast_paths(place, FastPaths(), steps, compilable=True)
    return "kernels" if decided.kernels else "compiled" if decided.compiled else DEFAULT_VARIANT


def _gpu() -> str | None:
    from skd.training.execution import gpu_model

    return gpu_model()


def _table(gpu: str | None) -> str:
    """Return the name of the kernel table that was measured on a GPU."""
    if gpu is None:
        raise UnfitError("the kernels run on a GPU only")
    from skd.kernels.tables import find_table

    table = find_table(gpu)
    if table is None:
        raise UnfitError("no table was measured on this GPU: run skd tune-kernels")
    return table.name
