"""Changes of the code that are known to leave the numbers as they were: ``accepted.json``.

The file lies beside this one and is committed with the change, so that records travel over it
wherever the code is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from skd.common.errors import SkdError
from skd.common.files import write_json
from skd.common.frozen import FrozenModel

ACCEPTED = Path(__file__).with_name("accepted.json")
# By path, a file's digests before and after; none where it is not among a run's files.
CodeChanges = dict[str, tuple[str | None, str | None]]


class AcceptedError(SkdError):
    """The file of accepted changes cannot be read. Says what to do."""


class Acceptance(FrozenModel):
    """Changes of source files that together left the numbers as they were."""

    changes: CodeChanges = Field(min_length=1)
    why: str = Field(description="how that is known")
    trained_again: tuple[str, ...] = Field(
        (), description="runs whose first epochs were trained again to the same bits"
    )
    at: str = Field(description="ISO 8601, UTC")


def accepted_path() -> Path:
    """Return the path of the file."""
    return ACCEPTED


def read_acceptances(path: Path | None = None) -> tuple[Acceptance, ...]:
    """Return the accepted changes in the order in which they were accepted.

    Args:
        path: of the file; none: the one beside this module.

    Raises:
        AcceptedError: the file cannot be read.
    """
    path = path or ACCEPTED
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return tuple(map(Acceptance.model_validate, listed))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, ValidationError) as error:
        raise AcceptedError(
            f"{path} cannot be read: {error}; git has the last sound one"
        ) from error


def add_acceptance(acceptance: Acceptance, path: Path | None = None) -> Path:
    """Add accepted changes to the file, and return its path; arguments as `read_acceptances`.

    Raises:
        AcceptedError: the file cannot be read.
    """
    all_of_them = [*read_acceptances(path), acceptance]
    path = path or ACCEPTED
    write_json(path, [one.model_dump(mode="json") for one in all_of_them])
    return path


def changes_since(
    before: Mapping[str, str], now: Mapping[str, str], accepted: Iterable[Acceptance] = ()
) -> CodeChanges:
    """Return how the code of a run has changed, but for accepted changes: digests by path.

    Args:
        before: the run's files when it was trained, path to digest.
        now: its files today, likewise.
        accepted: changes that left the numbers as they were, in the order in which they were made.
    """
    state, fewest = before, _differing(before, now)
    for acceptance in accepted:
        after = _applied(acceptance, state, now)
        if after is not None:
            state, fewest = after, min(fewest, _differing(after, now), key=len)
    return fewest


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> CodeChanges:
    sides = {path: (then.get(path), now.get(path)) for path in sorted({*then, *now})}
    return {path: (before, after) for path, (before, after) in sides.items() if before != after}


def _applied(
    acceptance: Acceptance, state: Mapping[str, str], now: Mapping[str, str]
) -> dict[str, str] | None:
    """Return a run's files after accepted changes; none where these are not changes of them.

    All of the changes hold together: where one of the run's files is in neither of the two states,
    none applies.
    """
    after = dict(state)
    for path, digests in acceptance.changes.items():
        if path in state and state[path] not in digests:
            return None
        if digests[1] is not None and (path in state or path in now):
            after[path] = digests[1]
        elif digests[1] is None and path not in now:
            after.pop(path, None)
    return after if after != state else None
