"""The frame of each command: prints errors as one line and encodes output. Imports no torch."""

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

CTRL_C = 130  # 128 + SIGINT, the convention of shells
# Replacements for characters that the terminal's encoding lacks.
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
    """Run a command line, and exit with an error line instead of a traceback for expected errors.

    Args:
        name: the program's name, at the start of the line.
        command: reads the arguments itself, and may raise SystemExit.
        status: returns the exit status for an error.
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
        _exit_with(f"{name}: {error}", status(error))
    except BrokenPipeError:  # `skd list studies | head -1`
        _discard_output()
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(CTRL_C)
    except OSError as error:
        if (message := explain_os_error(error)) is None:
            raise
        _exit_with(f"{name}: {message}", USAGE)


def replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return a replacement for characters that an encoding lacks; an error handler of `codecs`.

    Bytes of a file name that are not valid text are written unchanged.
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
    """Flush standard output now: errors at the interpreter's exit could not be handled."""
    if sys.stdout is None:  # closed by the parent process
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


def _exit_with(message: str, status: int) -> NoReturn:
    print(printable(message), file=sys.stderr)
    sys.exit(status)
