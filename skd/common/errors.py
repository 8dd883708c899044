"""Errors that a user can fix. The command line prints them as one line, without a traceback."""

from __future__ import annotations

import difflib
import errno
import warnings
from collections.abc import Iterable

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEFAULT_FORMAT = warnings.formatwarning

# Exit statuses of the commands, besides 0.
FAILED, USAGE, INTERRUPTED = 1, 2, 143
TIME_UP = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to continue


class SkdError(Exception):
    """An error that a user can fix. The message says what is wrong and what to do."""

    repeats = False  # whether a run that failed with this error would fail again


class SkdWarning(UserWarning):
    """A warning for users; the command continues."""


class InterruptedRunError(SkdError):
    """A run stopped on request, after saving its state."""


class TimeUpError(InterruptedRunError):
    """The time limit of a command is over; everything is saved."""


class RunFailedError(SkdError):
    """A run failed; its failure note has the reason."""


class DeviceFailedError(RunFailedError):
    """The device of a run failed; this process cannot use it again."""


class UnknownNameError(SkdError, ValueError):
    """An unknown name. The message lists the allowed ones."""

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} '{name}'{suggest(name, allowed)}")


class UnfitError(SkdError, ValueError):
    """A loss cannot work on these networks or this data set. The message says why."""


class TeacherError(SkdError):
    """A teacher or checkpoint is missing, unreadable or unsuitable. The message says what to do."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: the most similar name, then all allowed names."""
    allowed = list(allowed)
    by_folded = {known.casefold(): known for known in allowed}
    similar = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    hint = f" (did you mean '{by_folded[similar[0]]}'?)" if similar else ""
    return f"{hint}; allowed: {', '.join(allowed) or 'none'}"


def error_text(error: BaseException) -> str:
    """Return an error as one line.

    Errors of this project and of the operating system are complete sentences. Other errors need
    the name of their class: the message of a `KeyError`, for example, is only the key.
    """
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return f"{error}; free some space, then run the same command again to continue"
    text = " ".join(str(error).split())
    if text and isinstance(error, SkdError | OSError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def warn_once(text: str) -> None:
    """Issue a warning, once per process; the command line prints it as one line."""
    warnings.warn(text, SkdWarning, stacklevel=1)


def show_warnings_as_lines(command: str) -> None:
    """Print this project's warnings as ``COMMAND: MESSAGE``, without their place in the code."""

    def format_warning(message: Warning | str, category: type[Warning], *place: object) -> str:
        if issubclass(category, SkdWarning):
            return f"{command}: {message}\n"
        return _DEFAULT_FORMAT(message, category, *place)

    warnings.formatwarning = format_warning
