"""Fixtures: real data if available; one CPU thread, so that trainings repeat exactly."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.cli import main
from tests.builders.paths import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first: no worker should start one of them last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def skd(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command as `skd` does; returns its exit status, output and errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["skd", *map(str, arguments)])
        status = 0
        try:
            main.main()
        except SystemExit as left:
            status = left.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder with reference/ and data/ beside the repository."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip(f"no reference data: {folder} is not there")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with teachers/ and cifar100/: $SKD_DATA, or ../shared/data."""
    for folder in (Path(os.environ.get("SKD_DATA", "data")), ROOT.parent / "shared" / "data"):
        if (folder / "teachers").is_dir():
            return folder
    pytest.skip("no real data: neither SKD_DATA nor ../shared/data has teachers/")


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which torchvision finds CIFAR-100."""
    own = Path(os.environ.get("SKD_DATA", "data"))
    if (own / "cifar-100-python" / "train").is_file():
        return own
    for folder in (own, ROOT.parent / "shared" / "data"):
        rebuild = folder / "cifar100" / "rebuild.py"
        if rebuild.is_file():
            root = tmp_path_factory.mktemp("cifar")
            subprocess.run([sys.executable, rebuild, root], check=True, capture_output=True)
            return root
    pytest.skip("no CIFAR-100: neither SKD_DATA nor ../shared/data has it")
