"""Write the files of a new term or transformation from skeletons. Does not import torch."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection
from pathlib import Path
from string import Template
from typing import Literal

from skd.common.errors import SkdError
from skd.common.files import write_atomically
from skd.common.names import MAX_NAME_LENGTH
from skd.common.project import ROOT

SKELETONS = Path(__file__).with_name("skeleton")
Kind = Literal["term", "transformation"]


class BaselineNameError(SkdError, ValueError):
    """A file of ``baselines/`` cannot have this name. The message says why."""


def write_skeletons(
    kind: Kind,
    name: str,
    taken: Collection[str],
    reserved: Collection[str] = (),
    root: Path = ROOT,
) -> tuple[Path, Path]:
    """Write ``baselines/NAME.py`` and ``tests/baselines/test_NAME.py``; return their paths.

    Args:
        kind: a loss term, or a transformation of the teacher's logits.
        name: the file's name without .py, which is also the method's name in sheets.
        taken: names of existing methods, terms and transformations.
        reserved: names with another meaning where the name will be used.
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
    if name in reserved:
        raise BaselineNameError(
            f"'{name}' cannot be the name of a {kind}: it has another meaning; choose another name"
        )
    rule = root / "baselines" / f"{name}.py"
    test = root / "tests" / "baselines" / f"test_{name}.py"
    for path in (rule, test):
        if path.exists():
            raise BaselineNameError(f"{path} exists already; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    for skeleton, path in ((f"{kind}.py.txt", rule), (f"test_{kind}.py.txt", test)):
        text = Template((SKELETONS / skeleton).read_text(encoding="utf-8")).substitute(
            name=name, title=title
        )
        write_atomically(path, text.encode())
    return rule, test
