"""Importing the modules of packages that users extend, whatever a module raises.

Imports no torch itself.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from skd.common.errors import SkdError
from skd.common.project import ROOT

WARNING_PREFIX = "skd: warning: "  # start of a warning's line on stderr


class BrokenFileError(SkdError, ImportError):
    """A file cannot be imported. The message names the file and the error."""


def load_module(name: str) -> ModuleType:
    """Import and return a module.

    Args:
        name: the full name, such as ``baselines.kd``.

    Raises:
        BrokenFileError: the import fails, for any reason.
    """
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        raise BrokenFileError(
            f"{_error_place(name, error)}: {_one_line(error)}; repair the file or move it away"
        ) from error


def load_modules(names: Iterable[str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Return the modules that can be imported, and the errors of the others, both by name."""
    loaded, broken = {}, {}
    for name in names:
        try:
            loaded[name] = load_module(name)
        except BrokenFileError as error:
            broken[name] = str(error)
    return loaded, broken


def print_broken_files(broken: Iterable[str]) -> None:
    """Print one line on stderr for each file that is skipped because it cannot be imported."""
    for reason in broken:
        print(f"{WARNING_PREFIX}left out: {reason}", file=sys.stderr, flush=True)


def module_file(name: str) -> str:
    """Return the path of a module's file, relative to the repository."""
    return f"{name.replace('.', '/')}.py"


def _error_place(name: str, error: BaseException) -> str:
    """Return the file and line of an import's error: the innermost ones within the package."""
    package = name.rpartition(".")[0]
    folders = sys.modules[package].__path__ if package in sys.modules else ()
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    for file, line in reversed(places):
        if any(Path(file).is_relative_to(folder) for folder in folders):
            path = Path(file).relative_to(ROOT) if Path(file).is_relative_to(ROOT) else file
            return f"{path}, line {line}"
    return module_file(name)


def _one_line(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(message.split())}".removesuffix(": ")
