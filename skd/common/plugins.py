"""Importing the modules of packages that users extend, whatever a module raises.

Imports no torch itself.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
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


def load_own_package(name: str) -> ModuleType:
    """Import and return a top-level package of this project.

    Raises:
        BrokenFileError: the import fails, or Python finds another package with this name.
    """
    package = load_module(name)
    folders = [Path(folder).resolve() for folder in package.__path__]
    if ROOT / name not in folders:
        raise BrokenFileError(
            f"the package {name} of this project is in {ROOT / name}, but Python finds "
            f"{', '.join(map(str, folders))}; rename that one, or start Python in another folder"
        )
    return package


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


@contextlib.contextmanager
def module_from_elsewhere(package: str, file: Path) -> Iterator[str]:
    """Have a file outside a package found and imported as one of its modules, within the context.

    Args:
        package: the package's name; it must be imported.
        file: the file. Other files of its folder are not found.

    Yields:
        The module's name within the package.

    Raises:
        BrokenFileError: the file does not exist, cannot be a module, or has the name of a module of
            the package.
    """
    if not file.is_file():
        raise BrokenFileError(f"{file}: no such file")
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise BrokenFileError(
            f"{file}: its name must be letters, digits and _, with the suffix .py"
        )
    folders = sys.modules[package].__path__
    if any((Path(folder) / file.name).exists() for folder in folders):
        raise BrokenFileError(f"{file}: {package} has a module '{file.stem}'; rename the file")
    name = f"{package}.{file.stem}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        folders.append(folder)
        try:
            yield file.stem
        finally:
            folders.remove(folder)
            sys.modules.pop(name, None)
