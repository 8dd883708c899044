"""Errors that have an answer: the command line tells them in a line, without a traceback."""

from __future__ import annotations

import difflib
import errno
import warnings
from collections.abc import Iterable

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORMAT = warnings.formatwarning  # Python's own

# Exit statuses of the commands, beside 0.
FAILED, USAGE, INTERRUPTED = 1, 2, 143
TIME_UP = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on


class SkdError(Exception):
    """Something a user can put right. The message says what to do."""

    repeats = False  # whether a run that failed so would only fail again


class SkdWarning(UserWarning):
    """Something that a user should know of, although the command goes on."""


class InterruptedRunError(SkdError):
    """A run was asked to stop; it has saved where it stands."""


class TimeUpError(InterruptedRunError):
    """The time that a command was given is over; everything has been saved."""


class RunFailedError(SkdError):
    """A run failed by itself; a failure note says why."""


class DeviceFailedError(RunFailedError):
    """A run's device failed under it: nothing more can be done in this process."""


class UnknownNameError(SkdError, ValueError):
    """A name that is not among the allowed ones, which the message lists."""

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} '{name}'{suggest(name, allowed)}")


class UnfitError(SkdError, ValueError):
    """A loss cannot work on these networks or this data set. The message says why."""


class TeacherError(SkdError):
    """A teacher, or a checkpoint, is not at hand, cannot be read or is no good. Says what to do."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return the tail of an error message: the allowed names, the nearest one first."""
    allowed = list(allowed)
    by_folded = {known.casefold(): known for known in allowed}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    hint = f" (did you mean '{by_folded[near[0]]}'?)" if near else ""
    return f"{hint}; allowed: {', '.join(allowed) or 'none'}"


def error_text(error: BaseException) -> str:
    """Return an error in words, on a line.

    Errors of this project and of the system say what is wrong; those of Python and of libraries
    need their kind's name, as a `KeyError` is but the key.
    """
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return f"{error}; make room, and the same command goes on"
    text = " ".join(str(error).split())
    if text and isinstance(error, SkdError | OSError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def warn_once(text: str) -> None:
    """Warn of something, once a process; the command line shows it as a line."""
    warnings.warn(text, SkdWarning, stacklevel=1)


def show_warnings_as_lines(command: str) -> None:
    """Have this project's warnings shown without the place in the code."""

    def line(message: Warning | str, category: type[Warning], *place: object) -> str:
        own = issubclass(category, SkdWarning)
        return f"{command}: {message}\n" if own else _FORMAT(message, category, *place)

    warnings.formatwarning = line
