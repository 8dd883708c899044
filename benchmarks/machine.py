"""The machine of a benchmark, as its results name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skd.training.execution import Execution


def machine(execution: Execution) -> dict[str, Any]:
    """Return the fields of a result that say where it was measured."""
    from skd.training.environment import environment

    details = environment()
    name = details["cpu"] if execution.device == "cpu" else details["gpu"]
    return {
        "environment": details,
        "device": execution.device,
        "device_name": name or "unknown",
    }
