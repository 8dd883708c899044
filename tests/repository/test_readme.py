"""The README's walk-through, word for word, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.paths import ROOT

FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    text = (ROOT / "README.md").read_text()
    return re.search(rf"^## {title}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL).group(1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    for name in ("baselines", "benchmarks", "report", "skd", "tests", "workflow"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, symlinks=True)
    for name in ("pyproject.toml", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    (folder / "local").symlink_to("workflow/profiles/local")
    return folder


@pytest.fixture
def run(copy: Path) -> Callable[[str], str]:
    """Return a function that runs a command in the copy, and returns what it prints."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
    }

    def run_command(command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=copy, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run_command


@pytest.mark.slow
def test_the_walk_through_adds_a_rule_that_works(copy: Path, run: Callable[[str], str]) -> None:
    text = section("Add a baseline")
    files = dict(FILE.findall(text))
    rules = ("nst", "vecscale")
    assert all(len(files[f"baselines/{rule}.py"].splitlines()) < 40 for rule in rules)
    first, then = (commands.strip() for commands in COMMANDS.findall(text))
    run(first)
    python = [
        f"{place}{rule}.py" for rule in rules for place in ("baselines/", "tests/baselines/test_")
    ]
    for name in python:
        assert (copy / name).is_file()
    for name, content in files.items():
        (copy / name).write_text(content)
    run(f"{sys.executable} -m ruff check {' '.join(python)}")
    outputs = [run(command) for command in then.splitlines()]
    assert "nst: sound" in outputs[1]
    assert "vecscale: sound" in outputs[2]
    for name in ("index.html", "results.md"):
        page = (copy / "results/nst-on-digits/report" / name).read_text()
        for method in ("SKD + nst", "vecscale-dkd"):  # as the report writes them
            assert method in page
