"""Digests of the source code of this process, for the records of runs."""

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
    """Return the digests of the source files that make a teacher's stored outputs, by path."""
    return closure_digests(views_source_roots(dataset, network_family(network)), _files())


def current_run_code(spec: RunSpec) -> dict[str, str]:
    """Return the digests of the source files that a run depends on, by path.

    They are those of the first call in this process.
    """
    return closure_digests(run_source_roots(spec, network_family), _files())


def join_session_digests(
    earlier: Mapping[str, str] | None, now: Mapping[str, str]
) -> dict[str, str]:
    """Return the digests of a resumed run. A changed file has all its digests, in order.

    Args:
        earlier: of the sessions so far; ``None`` if they were not recorded.
        now: of this session.
    """
    if earlier is None:
        return {path: f"{UNKNOWN_CODE}+{digest}" for path, digest in now.items()}
    joined = {}
    for path in sorted({*earlier, *now}):
        digests = [*earlier.get(path, UNKNOWN_CODE).split("+"), now.get(path, UNKNOWN_CODE)]
        joined[path] = "+".join(dict.fromkeys(digests))
    return joined


def snapshot_code() -> None:
    """Read the code as it is now. Call this before the modules that train are imported."""
    _files()


@cache
def _files() -> dict[str, SourceFile]:
    parts = [ROOT / "baselines", ROOT / "skd" / "data", ROOT / "skd" / "models"]
    paths = [path.relative_to(ROOT) for part in parts for path in part.rglob("*.py")]
    return read_source_closure([LOOP_FILE, *(path.as_posix() for path in paths)])
