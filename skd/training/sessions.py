"""The sessions of a run: one description for each, and the code that trained in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from skd.code.accepted import changes_since, read_acceptances
from skd.study.spec import RunSpec
from skd.training.current_code import current_run_code, join_session_digests
from skd.training.data_parallel import BatchPartition
from skd.training.environment import environment


@dataclass(frozen=True)
class Sessions:
    """The sessions of a run so far. A session is one process, or one team, that trains the run.

    Attributes:
        descriptions: one line for each session; the current session is the last one.
        code: digests of the source files, by path. A file that changed between sessions has
            several digests, joined by "+".
    """

    descriptions: list[str]
    code: dict[str, str]

    @classmethod
    def with_current_only(cls, spec: RunSpec, partition: BatchPartition) -> Sessions:
        """Return the sessions of a run that starts now: only the current one."""
        return cls([_describe_session(partition)], current_run_code(spec))

    def after(self, state: dict[str, Any]) -> Sessions:
        """Return the sessions of a checkpoint's state, followed by the current one.

        Changes of the code since the earlier sessions do not count if they are accepted.
        """
        earlier, code = state.get("code"), self.code
        if earlier is None or changes_since(earlier, code, read_acceptances()):
            code = join_session_digests(earlier, code)
        return Sessions([*state["sessions"], *self.descriptions], code)

    def changed_files(self) -> list[str]:
        """Return the source files that have changed since the first session."""
        return [path for path, digests in self.code.items() if "+" in digests]


# The code's digest in a description that `_describe_session` returns.
_CODE = re.compile(r", code ([0-9a-f]+)")


def _describe_session(partition: BatchPartition) -> str:
    """Return the description of the current session."""
    facts = environment()
    device = facts["gpu"] or facts["cpu"]
    text = f"torch {facts['torch']}, {device}, code {facts['sources']}"
    if partition.num_parts > 1:
        text += f", {partition.team.world_size} processes, {partition.accumulate} parts each"
    return text


def code_of_sessions(descriptions: Iterable[str]) -> str:
    """Return the code's digests in descriptions of sessions, each one once, joined by "+".

    A session from before digests were recorded counts as "unknown".
    """
    matches = [_CODE.search(description) for description in descriptions]
    return "+".join(dict.fromkeys(match[1] if match else "unknown" for match in matches))
