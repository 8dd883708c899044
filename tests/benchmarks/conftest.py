"""Fixtures: a case, a side's options, and fake sides that other processes can import."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.cases import BenchmarkCase, SideOptions, select_cases
from tests.builders import tiny
from tests.builders.paths import ROOT


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the fake sides importable in the sides' processes."""
    paths = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), paths]))


@pytest.fixture(scope="module")
def case() -> BenchmarkCase:
    return select_cases(tiny.study(), methods=["kd"])[0]


@pytest.fixture
def options(tmp_path: Path) -> SideOptions:
    return SideOptions(device="cpu", threads=1, workers=0, results=tmp_path)
