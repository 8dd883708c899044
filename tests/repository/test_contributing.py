"""CONTRIBUTING's network and data set, word for word, in a copy of the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.paths import ROOT
from tests.repository.test_readme import COMMANDS, FILE, copy

__all__ = ["copy"]  # a fixture

FILES = ["skd/models/plain.py", "skd/data/stripes.py", "workflow/studies/plain-on-stripes.yaml"]


@pytest.mark.slow
def test_the_network_and_the_data_set_work(copy: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    text = re.search(r"^## A new network\n(.*?)^## A new study\n", text, re.M | re.S).group(1)
    files = dict(FILE.findall(text))
    assert list(files) == FILES
    for name, content in files.items():
        (copy / name).write_text(content)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
    }

    def run(command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=copy, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

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
