"""The code of this process, as a run's record has it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from skd.code.closure import SourceFile, closure_digests, read_source_closure
from skd.common.project import ROOT
from skd.models import network_family
from skd.store.stale import UNKNOWN_CODE
from skd.study.code_roots import LOOP_FILE, run_source_roots, views_source_roots
from skd.study.spec import DatasetSpec, RunSpec


def current_views_code(dataset: DatasetSpec, network: str) -> dict[str, str]:
    """Return the digests of the files that stored views of a teacher depend on, as `current_run_code`."""
    return closure_digests(views_source_roots(dataset, network_family(network)), _files())


def current_run_code(spec: RunSpec) -> dict[str, str]:
    """Return the digests of a run's files, by path, as they were when this process first asked."""
    return closure_digests(run_source_roots(spec, network_family), _files())


def join_session_digests(
    earlier: Mapping[str, str] | None, now: Mapping[str, str]
) -> dict[str, str]:
    """Return the digests of a run that goes on: of a changed file all of them, in order.

    Args:
        earlier: of the sessions so far; none where they were not kept.
        now: of this session.
    """
    if earlier is None:
        return {path: f"{UNKNOWN_CODE}+{digest}" for path, digest in now.items()}
    found = {}
    for path in sorted({*earlier, *now}):
        seen = [*earlier.get(path, UNKNOWN_CODE).split("+"), now.get(path, UNKNOWN_CODE)]
        found[path] = "+".join(dict.fromkeys(seen))
    return found


def snapshot_code() -> None:
    """Note the code as it is now: to be called before what trains is imported."""
    _files()


@cache
def _files() -> dict[str, SourceFile]:
    parts = [ROOT / "baselines", ROOT / "skd" / "data", ROOT / "skd" / "models"]
    paths = [path.relative_to(ROOT) for part in parts for path in part.rglob("*.py")]
    return read_source_closure([LOOP_FILE, *(path.as_posix() for path in paths)])
