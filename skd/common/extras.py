"""Optional packages: which extra of this project installs them. Imports no torch.

`skd.library` needs the project's own dependencies only. The commands need the extra ``suite``, and
some of their options need another one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec

from skd.common.errors import USAGE, SkdError

# The modules that each extra of pyproject.toml adds, without those of its own dependencies.
EXTRAS: dict[str, tuple[str, ...]] = {
    "suite": (
        "torchvision",
        "typer",
        "rich",
        "sklearn",
        "threadpoolctl",
        "scipy",
        "pandas",
        "pyarrow",
        "matplotlib",
        "jinja2",
        "joblib",
        "pynvml",
        "snakemake",
        "snakemake_executor_plugin_slurm",
    ),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "tensorboard": ("tensorboard",),
    "timm": ("timm",),
}


class MissingExtraError(SkdError, ImportError):
    """An optional package is not installed. The message says which extra installs it."""


def require_extra(extra: str, what: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        extra: one of `EXTRAS`.
        what: what needs them, for the message.

    Raises:
        MissingExtraError: one is not; names it and the extra.
    """
    for module in EXTRAS[extra]:
        if find_spec(module) is None:
            raise MissingExtraError(f"{what} needs the package {module}{_install(extra)}")


def missing_extra_text(error: ModuleNotFoundError) -> str | None:
    """Return a message on a missing package of an extra; ``None`` for any other module."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    return extra and f"this command needs the package {module}{_install(extra)}"


def run_with_extras(program: str, command: Callable[[], None]) -> None:
    """Run a command line; if a package of an extra is missing, exit with a line that says so.

    Args:
        program: the name of the program, at the start of the line.
        command: imports what it needs.
    """
    try:
        command()
    except ModuleNotFoundError as error:
        if (text := missing_extra_text(error)) is None:
            raise
        print(f"{program}: {text}", file=sys.stderr)
        sys.exit(USAGE)


def _install(extra: str) -> str:
    return f"; install it with the extra '{extra}': pip install 'skd[{extra}]'"
