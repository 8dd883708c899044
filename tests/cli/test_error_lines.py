"""The environment of commands: terminals of any encoding, closed pipes, Ctrl-C."""

import io
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from skd.cli.error_lines import run_command
from skd.common.files import UnwritableError


def ended(command: Callable[[], object]) -> int:
    with pytest.raises(SystemExit) as stopped:
        run_command("skd", command)
    return stopped.value.code


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("ascii", b"a -> b, 1 +- 2 us, ?\n"), ("latin-1", "a -> b, 1 ± 2 µs, ?\n".encode("latin-1"))],
)
def test_characters_that_a_terminal_lacks_are_replaced(
    monkeypatch: pytest.MonkeyPatch, encoding: str, written: bytes
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    run_command("skd", lambda: print("a → b, 1 ± 2 µs, \N{SNOWMAN}"))
    assert terminal.buffer.getvalue() == written


def test_a_file_name_that_is_not_text_is_written_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    run_command("skd", lambda: print(os.fsdecode(b"caf\xe9")))
    assert terminal.buffer.getvalue() == b"caf\xe9\n"


def test_a_command_whose_output_is_not_read_to_its_end_ends_quietly() -> None:
    command = f"{sys.executable} -m skd list studies | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_closed_or_interrupted_output_gives_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("skd.cli.error_lines._discard_output", lambda: None)
    assert ended(closed) == 1
    assert ended(interrupted) == 130
    assert capsys.readouterr().err == ""


def test_output_that_cannot_be_written_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert ended(lambda: None) == 2
    assert capsys.readouterr().err.startswith("skd: standard output cannot be written: No space")


def test_an_error_without_a_path_is_reported_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UnwritableError(28, "No space left on device", "x.json")

    def fail_without_a_path() -> None:
        raise OSError(28, "No space left on device")

    assert (ended(fail), ended(fail_without_a_path)) == (2, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("skd: x.json cannot be written: No space left on device; free some")
    assert second.startswith("skd: No space left on device; free some")
