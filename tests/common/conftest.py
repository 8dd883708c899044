"""Fast heartbeats, and a run folder to lease."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import skd.common.lease


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skd.common.lease, "HEARTBEAT_SECONDS", 0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "0123456789abcdef"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened
