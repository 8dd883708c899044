"""Text is UTF-8 in any locale."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.paths import ROOT

FILES = sorted(
    path
    for folder in ("skd", "report", "baselines", "benchmarks", "tools")
    for path in (ROOT / folder).rglob("*.py")
)


def unnamed_encodings(source: str) -> Iterator[str]:
    """Yield the calls that read or write text in the locale's encoding."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        arguments = {keyword.arg: keyword.value for keyword in call.keywords}
        constants = [
            part.value
            for part in [*call.args, *arguments.values()]
            if isinstance(part, ast.Constant)
        ]
        binary = any(isinstance(value, str) and "b" in value for value in constants)
        others = ast.unparse(function) in ("os.open", "Image.open")
        opens = name in ("open", "fdopen") and not binary and not others
        # `dataclasses.replace` may set a field named text.
        piped = name != "replace" and arguments.keys() & {"text", "universal_newlines"}
        if (opens or piped or name in ("read_text", "write_text")) and "encoding" not in arguments:
            yield f"line {call.lineno}: {ast.unparse(call)}"


@pytest.mark.parametrize(
    "call",
    [
        "path.read_text()",
        "path.write_text('x')",
        "open('x')",
        "path.open('a')",
        "subprocess.run(['x'], text=True)",
    ],
)
def test_a_call_without_an_encoding_is_found(call: str) -> None:
    assert [*unnamed_encodings(call)] == [f"line 1: {call}"]


def test_all_text_is_read_and_written_in_a_named_encoding() -> None:
    unnamed = {}
    for path in FILES:
        if calls := [*unnamed_encodings(path.read_text(encoding="utf-8"))]:
            unnamed[path.relative_to(ROOT).as_posix()] = calls
    assert not unnamed


def test_a_title_beyond_ascii_is_read_and_shown_in_a_c_locale(tmp_path: Path) -> None:
    demo = (ROOT / "workflow" / "studies" / "demo.yaml").read_text(encoding="utf-8")
    sheet = demo.replace("title: Demo on cluttered digits", "title: Ünlike ≥ 中 digits")
    assert sheet != demo
    (tmp_path / "mine.yaml").write_text(sheet, encoding="utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    known = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    done = subprocess.run(
        [sys.executable, "-m", "skd", "list", "studies"],
        cwd=ROOT,
        env={**known, **locale, "SKD_STUDIES": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?nlike >= ? digits" in done.stdout
