"""Student-friendly Knowledge Distillation: a reproduction harness (arXiv 2305.10893).

`skd.library` has the losses and networks for a training loop of one's own. Importing `skd` itself
imports neither it nor torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "library":
        return import_module("skd.library")
    raise AttributeError(f"module 'skd' has no attribute '{name}'")
