"""A new baseline's files, from the skeletons beside this module. Imports no torch."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from skd.common.errors import SkdError
from skd.common.files import write_atomically
from skd.common.names import MAX_NAME_LENGTH
from skd.common.project import ROOT

SKELETONS = Path(__file__).with_name("skeleton")


class BaselineNameError(SkdError, ValueError):
    """A name that no baseline can have. The message says why."""


def write_baseline(name: str, taken: list[str], root: Path = ROOT) -> list[Path]:
    """Write ``baselines/NAME.py`` and ``tests/baselines/test_NAME.py``; return their paths.

    Args:
        name: of the file, and of the method in sheets.
        taken: names of methods that there are.
        root: the repository's root.

    Raises:
        BaselineNameError: the name is no Python module's, or is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BaselineNameError(
            f"'{name}': a baseline is named as its file: small letters, digits, _, a letter first"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise BaselineNameError(
            f"'{name[:20]}…': a method's name has at most {MAX_NAME_LENGTH} letters"
        )
    if name in taken:
        raise BaselineNameError(f"there is a method '{name}' already; choose another name")
    paths = {
        "baseline.py.txt": root / "baselines" / f"{name}.py",
        "test_baseline.py.txt": root / "tests" / "baselines" / f"test_{name}.py",
    }
    for path in paths.values():
        if path.exists():
            raise BaselineNameError(f"{path} is there already; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    for skeleton, path in paths.items():
        text = Template((SKELETONS / skeleton).read_text(encoding="utf-8")).substitute(
            name=name, title=title
        )
        write_atomically(path, text.encode())
    return list(paths.values())
