"""Fixtures that write sheets to the folder of studies."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from skd.expansion.expand import expand_study
from skd.study.expansion import Expansion
from tests.builders.sheets import SHEET, Change


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a sheet, a text or changes of SHEET, to the folder of studies."""
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))

    def write_sheet(*changes: Change, text: str | None = None) -> Path:
        sheet = copy.deepcopy(SHEET)
        for change in changes:
            change(sheet)
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(sheet, sort_keys=False) if text is None else text)
        return path

    return write_sheet


@pytest.fixture
def expanded(write: Callable[..., Path]) -> Callable[..., Expansion]:
    def expand_sheet(*changes: Change, text: str | None = None) -> Expansion:
        write(*changes, text=text)
        return expand_study("mine")

    return expand_sheet
