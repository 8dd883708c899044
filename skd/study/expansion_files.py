"""Writing, reading and renewing ``results/<study>/specs.json``, the file of an expansion.

Expanding needs torch. Another process does it, so this module imports no torch.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from skd.code.sources import source_files, subprocess_environment
from skd.common.files import read_json, write_json
from skd.common.frozen import canonical, digest
from skd.common.plugins import WARNING_PREFIX
from skd.study.expansion import Expansion
from skd.study.sheet import read_sheet
from skd.study.sheet_files import StudyError, find_sheet, sheet_files


class EditedExpansionError(StudyError):
    """A file of an expansion is not as `skd expand` wrote it. The message gives the evidence."""


def expansion_path(results: Path, study: str) -> Path:
    """Return the path of a study's expansion."""
    return results / study / "specs.json"


def load_expansion(name: str, results: Path) -> Expansion:
    """Return a study's expansion. An outdated one is expanded again, in another process.

    Raises:
        StudyError: the sheet is invalid; the message is the one that `skd expand` printed.
    """
    sheet = find_sheet(name)
    path = expansion_path(results, sheet.stem)
    return _read_current(path, sheet) or _expand_in_subprocess(name, sheet, results, path)


def load_expansion_readonly(name: str, results: Path) -> Expansion:
    """Return a study's expansion as `load_expansion` does, without writing to the results.

    Raises:
        StudyError: as `load_expansion`.
    """
    sheet = find_sheet(name)
    if (current := _read_current(expansion_path(results, sheet.stem), sheet)) is not None:
        return current
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "specs.json"
        return _expand_in_subprocess(name, sheet, results, path, "--output", str(path))


def write_expansion(expansion: Expansion, results: Path, path: Path | None = None) -> Path:
    """Write a study's expansion and return its path.

    Args:
        expansion: the expanded study.
        results: the results folder.
        path: the file; None: where workflow and report look for it.
    """
    path = path or expansion_path(results, expansion.study)
    data = expansion.model_dump(mode="json", by_alias=True)
    for node, written in zip(expansion.teachers, data["teachers"], strict=True):
        written["spec"] = canonical(node.spec)
    for cell, written in zip(expansion.cells, data["cells"], strict=True):
        written["spec"] = canonical(cell.spec)
    write_json(path, {"content": digest(data), **data})
    return path


def read_expansion_file(path: Path) -> Expansion | None:
    """Return the expansion in a file, even an outdated one.

    Returns:
        The expansion; None if the file is missing or this code cannot read it.

    Raises:
        EditedExpansionError: the file is not as `skd expand` wrote it.
    """
    try:
        data = read_json(path)
        content = data.pop("content", None) if isinstance(data, dict) else None
        expansion = Expansion.restore(data)
    except (OSError, ValueError):
        return None
    if content not in (None, digest(data)):  # files of earlier versions have no digest
        raise EditedExpansionError(f"{path} was edited by hand: its digest does not match")
    for identity, spec in expansion.specs():
        if spec.identity != identity:
            raise EditedExpansionError(
                f"{path} was edited by hand, or another release wrote it: the spec listed as "
                f"{identity} has the identity {spec.identity}"
            )
    return expansion


def known_checkpoint_hashes(results: Path, study: str) -> dict[Path, str]:
    """Return the SHA-256 of the checkpoints that an earlier expansion of the study read, by path.

    They identify an imported teacher whose file has been removed since then.
    """
    try:
        earlier = read_expansion_file(expansion_path(results, study))
    except EditedExpansionError:
        earlier = None
    return {
        node.source.file: node.spec.sha256
        for node in (earlier.teachers if earlier else ())
        if node.source is not None and node.source.file is not None
    }


def expansion_sources_digest(sheet: Path) -> str:
    """Return a hash of what an expansion depends on: the sheet, the code and the checkpoints."""
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sheet_files(sheet)))
    for name, content in source_files():
        state.update(name.encode() + content)
    for teacher in read_sheet(sheet).teachers.values():
        file = teacher.import_.file if teacher.import_ else None
        if file is not None and file.is_file():
            stat = file.stat()
            state.update(f"{file} {stat.st_size} {stat.st_mtime_ns}".encode())
    return state.hexdigest()


def _read_current(path: Path, sheet: Path) -> Expansion | None:
    """Return the expansion in a file; None if it is outdated or was edited."""
    try:
        expansion = read_expansion_file(path)
    except EditedExpansionError as error:
        print(f"skd: {error}; the sheet is expanded again", file=sys.stderr)
        return None
    return expansion if expansion and expansion.sources == expansion_sources_digest(sheet) else None


def _expand_in_subprocess(
    name: str, sheet: Path, results: Path, path: Path, *options: str
) -> Expansion:
    """Expand a study in another process, which imports torch, and return what it wrote."""
    command = [sys.executable, "-m", "skd", "expand", name, *options, "--results", str(results)]
    process = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**subprocess_environment(), "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    lines = process.stderr.splitlines()
    for warning in (line for line in lines if line.startswith(WARNING_PREFIX)):
        print(warning, file=sys.stderr)
    if process.returncode:
        message = "\n".join(line for line in lines if not line.startswith(WARNING_PREFIX))
        message = message.strip().removeprefix("skd: ")
        raise StudyError(message or f"{' '.join(command)} failed")
    expansion = _read_current(path, sheet)
    if expansion is None:
        raise StudyError(f"{sheet} or the code changed while it was expanded; run this again")
    return expansion
