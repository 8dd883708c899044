"""The loss functions of ``baselines/``, by name: `kd_loss`, `dkd_loss`, `sp_loss`, and so on.

They are plain functions of tensors. `dir` lists them, `help` shows their arguments. A new file of
``baselines/`` adds its functions without a change here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache

from torch import Tensor

from skd.common.errors import suggest
from skd.common.plugins import load_module
from skd.losses.discovery import term_classes, transformation_classes

_SUFFIX = "_loss"


@cache
def _functions() -> dict[str, Callable[..., Tensor]]:
    """Return the public functions whose names end in ``_loss``, by name."""
    names = (*term_classes(), *transformation_classes())
    modules = [load_module(f"baselines.{name}") for name in names]
    return {
        name: function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and name.endswith(_SUFFIX)
        and not name.startswith("_")
    }


def __getattr__(name: str) -> Callable[..., Tensor]:
    if name.endswith(_SUFFIX):
        if name in _functions():
            return _functions()[name]
        raise AttributeError(f"no loss function '{name}'{suggest(name, _functions())}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(_functions())
