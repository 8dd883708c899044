"""Write the files of a new baseline from skeletons. Does not import torch."""

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
    """A baseline cannot have this name. The message says why."""


def write_baseline(name: str, taken: list[str], root: Path = ROOT) -> list[Path]:
    """Write ``baselines/NAME.py`` and ``tests/baselines/test_NAME.py``; return their paths.

    Args:
        name: the file's name without .py, which is also the method's name in sheets.
        taken: names of existing methods.
        root: the repository's root.

    Raises:
        BaselineNameError: the name is not allowed for a Python module, or is taken.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BaselineNameError(
            f"'{name}' is not a name for a baseline's file; use lower-case letters, digits and _, "
            "with a letter first"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise BaselineNameError(
            f"'{name[:20]}…' is too long; a method's name has at most {MAX_NAME_LENGTH} characters"
        )
    if name in taken:
        raise BaselineNameError(f"a method '{name}' exists already; choose another name")
    paths = {
        "baseline.py.txt": root / "baselines" / f"{name}.py",
        "test_baseline.py.txt": root / "tests" / "baselines" / f"test_{name}.py",
    }
    for path in paths.values():
        if path.exists():
            raise BaselineNameError(f"{path} exists already; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    for skeleton, path in paths.items():
        text = Template((SKELETONS / skeleton).read_text(encoding="utf-8")).substitute(
            name=name, title=title
        )
        write_atomically(path, text.encode())
    return list(paths.values())
