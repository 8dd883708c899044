"""Importing the files of a package that users add files to, whatever one of them raises.

Imports no torch by itself.
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

WARNING_PREFIX = "skd: warning: "  # how a warning's line on stderr begins


class BrokenFileError(SkdError, ImportError):
    """What is asked for is in a file that cannot be used. The message names file and error."""


def load_module(name: str) -> ModuleType:
    """Return a module, imported.

    Args:
        name: in full, as ``baselines.kd``.

    Raises:
        BrokenFileError: the import fails, for whatever reason.
    """
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        said = f"{_place(name, error)}: {_one_line(error)}"
        raise BrokenFileError(f"{said}; mend the file or move it away") from error


def load_modules(names: Iterable[str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Return those modules that can be imported, and why the others cannot, by name."""
    loaded, broken = {}, {}
    for name in names:
        try:
            loaded[name] = load_module(name)
        except BrokenFileError as error:
            broken[name] = str(error)
    return loaded, broken


def print_broken_files(broken: Iterable[str]) -> None:
    """Print one line on stderr for each file that is left out."""
    for reason in broken:
        print(f"{WARNING_PREFIX}left out: {reason}", file=sys.stderr, flush=True)


def module_file(name: str) -> str:
    """Return a module's file, relative to the repository."""
    return f"{name.replace('.', '/')}.py"


def _place(name: str, error: BaseException) -> str:
    """Return the file and the line that an import failed at: the last within the package."""
    package = name.rpartition(".")[0]
    folders = sys.modules[package].__path__ if package in sys.modules else ()
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    for file, line in reversed(places):
        if any(Path(file).is_relative_to(folder) for folder in folders):
            shown = Path(file).relative_to(ROOT) if Path(file).is_relative_to(ROOT) else file
            return f"{shown}, line {line}"
    return module_file(name)


def _one_line(error: BaseException) -> str:
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(said.split())}".removesuffix(": ")
