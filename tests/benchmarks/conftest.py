"""A case, a side's options, and sides of tests that other processes can import."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.cases import BenchmarkCase, SideOptions, select_cases
from tests.builders import tiny
from tests.builders.paths import ROOT


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sides' processes find the fakes."""
    there = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), there]))


@pytest.fixture(scope="module")
def case() -> BenchmarkCase:
    return select_cases(tiny.study(), methods=["kd"])[0]


@pytest.fixture
def options(tmp_path: Path) -> SideOptions:
    return SideOptions(device="cpu", threads=1, workers=0, results=tmp_path)
