"""What surrounds each command: errors become a line, any terminal will do. Imports no torch."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from skd.common.errors import FAILED, USAGE, SkdError, show_warnings_as_lines
from skd.common.files import UnwritableError
from skd.common.system_errors import explain_os_error
from skd.common.terminal import printable

CTRL_C = 130  # 128 + SIGINT, as shells have it
# How output is written where the terminal's encoding lacks a character.
PLAIN_CHARACTERS = {
    "→": "->",
    "−": "-",  # noqa: RUF001
    "–": "-",  # noqa: RUF001
    "±": "+-",
    "×": "x",  # noqa: RUF001
    "µ": "u",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
}


def run_command(
    name: str, command: Callable[[], object], status: Callable[[SkdError], int] = lambda _: USAGE
) -> None:
    """Run a command line; errors that have an answer are a line, not a traceback.

    Args:
        name: of the program, which begins the line.
        command: reads the arguments itself, and may raise SystemExit.
        status: returns the exit status that an error has.
    """
    show_warnings_as_lines(name)
    for stream in (sys.stdout, sys.stderr):
        _accept_all_characters(stream)
    try:
        try:
            command()
        finally:
            _flush()
    except SkdError as error:
        _leave(f"{name}: {error}", status(error))
    except BrokenPipeError:  # `skd list studies | head -1`
        _discard_output()
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(CTRL_C)
    except OSError as error:
        if (said := explain_os_error(error)) is None:
            raise
        _leave(f"{name}: {said}", USAGE)


def replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for characters that an encoding lacks, as codecs' error handlers do.

    A file name's bytes that were no text are written as they were.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= character <= "\udcff" for character in text):
        return bytes(ord(character) - 0xDC00 for character in text), error.end
    return "".join(PLAIN_CHARACTERS.get(character, "?") for character in text), error.end


def _accept_all_characters(stream: TextIO | None) -> None:
    codecs.register_error("plain", replace_unencodable)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="plain")


def _flush() -> None:
    """Write what is left of the output now: at the interpreter's end, errors are beyond us."""
    if sys.stdout is None:  # closed by who started us
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        raise UnwritableError(error.errno, error.strerror, "standard output") from error


def _discard_output() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, status: int) -> NoReturn:
    print(printable(message), file=sys.stderr)
    sys.exit(status)
