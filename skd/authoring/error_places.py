"""The short form of an error that a user's class raises: its message, file and line."""

from __future__ import annotations

import traceback
from pathlib import Path

from skd.common.errors import error_text
from skd.common.plugins import load_module
from skd.common.project import ROOT


def short_traceback(error: BaseException) -> str:
    """Return two lines: the error, and the innermost place in ``baselines/``.

    If no frame is there, the place is the innermost one in the repository, else the last one.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return error_text(error)
    folders = [Path(folder).resolve() for folder in load_module("baselines").__path__]

    def in_rule(frame: traceback.FrameSummary) -> bool:
        return any(Path(frame.filename).resolve().is_relative_to(folder) for folder in folders)

    def in_repository(frame: traceback.FrameSummary) -> bool:
        path = Path(frame.filename)
        return path.is_relative_to(ROOT) and "site-packages" not in path.parts

    kinds = ([f for f in frames if in_rule(f)], [f for f in frames if in_repository(f)], frames)
    frame = next(kind for kind in kinds if kind)[-1]
    path = Path(frame.filename)
    file = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return f"{error_text(error)}\n{file}, line {frame.lineno}, in {frame.name}: {frame.line}"


def whole_traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it."""
    return "".join(traceback.format_exception(error)).rstrip()
