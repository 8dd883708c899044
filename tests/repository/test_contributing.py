"""CONTRIBUTING: its network and data set, word for word, in a copy; its tables name every field."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from torch import nn

from skd.terms import (
    Batch,
    Need,
    Outputs,
    TeacherModules,
    Term,
    TermContext,
    Transformation,
)
from tests.builders.paths import ROOT
from tests.repository.test_readme import COMMANDS, FILE, copy, run

__all__ = ["copy", "run"]  # fixtures

FILES = ["skd/models/plain.py", "skd/data/stripes.py", "workflow/studies/plain-on-stripes.yaml"]


@pytest.mark.slow
def test_the_network_and_the_data_set_work(copy: Path, run: Callable[[str], str]) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    text = re.search(r"^## A new network\n(.*?)^## A new study\n", text, re.M | re.S).group(1)
    files = dict(FILE.findall(text))
    assert list(files) == FILES
    for name, content in files.items():
        (copy / name).write_text(content)
    run(f"{sys.executable} -m ruff check {' '.join(FILES[:2])}")
    commands = [line for block in COMMANDS.findall(text) for line in block.strip().splitlines()]
    outputs = {command: run(command) for command in commands}
    networks = outputs["skd check-network skd/models/plain.py"]
    for name in ("plain8", "plain16"):
        assert f"{name}: sound" in networks
        assert f"{name} fits: reviewkd: student of" in networks
    assert "stripes: sound" in outputs["skd check-data skd/data/stripes.py"]
    report = (copy / "results/plain-on-stripes/report/results.md").read_text()
    assert "plain16" in report


def rows(first: str) -> set[str]:
    """Return the names in the first column of the table after some words."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index(first) :].split("\n|", 1)[1].split("\n\n", 1)[0]
    cells = [line.split("|")[0] for line in table.replace("\n|", "\n").splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`(\w+)", cell)}


def own(cls: type, base: type = object) -> set[str]:
    """Return the public names that a class defines."""
    names = {*vars(cls), *getattr(cls, "__annotations__", {})}
    return {name for name in names if not name.startswith("_") and not hasattr(base, name)}


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("`Batch`, the argument", own(Batch)),
        ("`Outputs`, of a network", own(Outputs)),
        ("`needs`, what is read", set(get_args(Need))),
        ("`TermContext`, the argument", own(TermContext) - {"restrict"}),
        ("`TeacherModules`, frozen", own(TeacherModules) - {"restrict"}),
    ],
)
def test_the_tables_name_every_field_that_a_rule_may_read(table: str, names: set[str]) -> None:
    assert rows(table) == names


SHARED = {"Settings", "needs", "version", "settings"}  # explained in the list


@pytest.mark.parametrize(
    ("table", "rule", "declared"),
    [
        (
            "| a term defines",
            Term,
            {"reads_epoch", "mixes_images", "replaces_classifier", "uses_partner", "weight"},
        ),
        ("| a transformation defines", Transformation, {"diagnostics_prefix"}),
    ],
)
def test_the_tables_name_every_hook(table: str, rule: type, declared: set[str]) -> None:
    flags = {"reads_target", "reads_second_target", *declared}
    assert rows(f"{table}") == own(rule, nn.Module) - SHARED - flags
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(flag in text for flag in flags - {"diagnostics_prefix"})
