"""Changes of the code that are known not to change the numbers: ``accepted.json``.

The file is in the folder of this module and is committed with the change, so records of the old
code stay valid in every clone.
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
# Digests of a file before and after, by path; None: the file does not belong to the run.
CodeChanges = dict[str, tuple[str | None, str | None]]


class AcceptedError(SkdError):
    """The file of accepted changes cannot be read. The message says what to do."""


class Acceptance(FrozenModel):
    """Changes of source files that together do not change the numbers."""

    changes: CodeChanges = Field(min_length=1)
    why: str = Field(description="how this is known")
    trained_again: tuple[str, ...] = Field(
        (), description="runs whose first epochs were trained again with bit-identical results"
    )
    at: str = Field(description="ISO 8601, UTC")


def accepted_path() -> Path:
    """Return the path of the file of accepted changes."""
    return ACCEPTED


def read_acceptances(path: Path | None = None) -> tuple[Acceptance, ...]:
    """Return the accepted changes in the order in which they were accepted.

    Args:
        path: of the file; None: the one in the folder of this module.

    Raises:
        AcceptedError: the file cannot be read.
    """
    path = path or ACCEPTED
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(map(Acceptance.model_validate, entries))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, ValidationError) as error:
        raise AcceptedError(
            f"{path} cannot be read: {error}; restore the last version with git"
        ) from error


def add_acceptance(acceptance: Acceptance, path: Path | None = None) -> Path:
    """Add accepted changes to the file, and return its path.

    Args:
        acceptance: the changes.
        path: of the file; None: the one in the folder of this module.

    Raises:
        AcceptedError: the file cannot be read.
    """
    acceptances = [*read_acceptances(path), acceptance]
    path = path or ACCEPTED
    write_json(path, [item.model_dump(mode="json") for item in acceptances])
    return path


def changes_since(
    before: Mapping[str, str], now: Mapping[str, str], accepted: Iterable[Acceptance] = ()
) -> CodeChanges:
    """Return how the code of a run has changed, without accepted changes: digests by path.

    Args:
        before: digests of the run's files when it was trained, by path.
        now: digests of the run's files today, by path.
        accepted: accepted changes, in the order in which they were made.
    """
    state, fewest = before, _differences(before, now)
    for acceptance in accepted:
        after = _apply(acceptance, state, now)
        if after is not None:
            state, fewest = after, min(fewest, _differences(after, now), key=len)
    return fewest


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> CodeChanges:
    sides = {path: (before.get(path), after.get(path)) for path in sorted({*before, *after})}
    return {path: digests for path, digests in sides.items() if digests[0] != digests[1]}


def _apply(
    acceptance: Acceptance, state: Mapping[str, str], now: Mapping[str, str]
) -> dict[str, str] | None:
    """Return a run's files after accepted changes; ``None`` if the changes do not apply to them.

    The changes apply together: if one file of the run has neither the digest before nor the one
    after, none of them applies. A changed file that the run no longer depends on is left out: runs
    with other roots may still depend on it.
    """
    after = dict(state)
    for path, digests in acceptance.changes.items():
        if path in state and state[path] not in digests:
            return None
        if path not in now:
            after.pop(path, None)
        elif digests[1] is not None:
            after[path] = digests[1]
    return after if after != state else None
