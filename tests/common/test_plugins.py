"""A broken file of a user is reported, and only the studies that need it are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import baselines
import skd.data
import skd.losses.discovery
import skd.models
from skd.study.expansion_files import expansion_path, load_expansion

SHEET = """
title: T
dataset: {name: synthetic}
recipe: {epochs: 1, milestones: []}
teachers: {resnet8: {train: {seed: 0}}}
pairs: [{teacher: resnet8, student: resnet8}]
methods: [student, kd]
seeds: 1
"""
BROKEN = {
    "def f(:\n": "line 1: SyntaxError: invalid syntax; repair the file or move it away",
    "\nimport nothere\n": "line 2: ModuleNotFoundError: No module named 'nothere'",
    "raise RuntimeError('two\\nlines')\n": "line 1: RuntimeError: two lines",
    "import sys\nsys.exit(3)\n": "line 2: SystemExit: 3",
    "x = 1\n": "expected one subclass of Term or Transformation, found 0",
}
Add = Callable[[ModuleType, str], Path]


def forget() -> None:
    skd.losses.discovery._discover.cache_clear()
    skd.models._families.cache_clear()
    skd.models._builders.cache_clear()


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Add a file wip.py to a package, for this test, and the studies `plain` and `with`."""
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.yaml").write_text(SHEET)
    (tmp_path / "with.yaml").write_text(SHEET.replace("kd]", "kd+wip]"))

    def write(package: ModuleType, text: str) -> Path:
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "wip.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        forget()
        return folder / "wip.py"

    yield write
    forget()
    for package in (baselines, skd.models, skd.data):
        sys.modules.pop(f"{package.__name__}.wip", None)


@pytest.mark.parametrize("text", BROKEN, ids=BROKEN.values())
def test_a_broken_baseline_stops_the_studies_that_use_it_alone(skd, add: Add, text: str) -> None:
    add(baselines, text)
    status, _, errors = skd("expand", "plain")
    assert status == 0
    assert errors.startswith("skd: warning: left out: ")
    assert "wip.py" in errors
    assert BROKEN[text] in errors
    assert errors.count("\n") == 1
    for arguments in (("expand", "with"), ("check-baseline", "wip")):
        status, _, errors = skd(*arguments)
        line = errors.splitlines()[-1]
        assert status == 2
        assert line.startswith("skd: ")
        assert "wip cannot be used" in line
        assert BROKEN[text] in line
    assert not expansion_path(Path("results"), "with").exists()


@pytest.mark.parametrize(
    "lines",
    [
        "methods: [kd]\nsettings: {wip: {weight: 1}}\n",
        "methods: [{name: a, like: wip}]\n",
        "methods: [{name: a, terms: [{term: wip}]}]\n",
    ],
)
def test_a_broken_baseline_is_named_wherever_a_sheet_names_it(skd, add: Add, lines: str) -> None:
    add(baselines, "x = 1\n")
    Path("plain.yaml").write_text(SHEET.replace("methods: [student, kd]\n", lines))
    assert "wip cannot be used" in skd("expand", "plain")[2].splitlines()[-1]


def test_lists_show_what_is_broken_beside_the_rest(skd, add: Add) -> None:
    add(baselines, "x = 1\n")
    Path("bad.yaml").write_text("title: [x\n")
    Path("folder.yaml").mkdir()
    listed = skd("list", "methods")[1]
    assert "wip" in listed
    assert "broken: " in listed
    assert "temperature: 4.0" in listed
    status, listed, _ = skd("list", "studies")
    assert status == 0
    (line,) = [line for line in listed.splitlines() if line.split()[:1] == ["bad"]]
    assert "broken: bad.yaml: not valid YAML: line 2" in line
    assert "Demo on cluttered digits" in listed
    assert "folder" not in listed


def test_a_broken_network_file_is_named_where_a_network_is_missing(skd, add: Add) -> None:
    add(skd_models := sys.modules["skd.models"], "import nothere\n")
    assert skd("expand", "plain")[0] == 0
    Path("plain.yaml").write_text(SHEET.replace("student: resnet8", "student: mine"))
    status, _, errors = skd("expand", "plain")
    assert status == 2
    assert "unknown network 'mine'" in errors
    assert "line 1: ModuleNotFoundError" in errors.splitlines()[-1]
    assert len(skd_models.broken_networks()) == 1


def test_of_a_network_that_two_files_define_neither_is_taken(skd, add: Add) -> None:
    add(sys.modules["skd.models"], "NETWORKS = {'resnet8': None, 'mine': None}\n")
    status, _, errors = skd("expand", "plain")
    assert status == 2
    assert "skd/models/resnet.py and skd/models/wip.py both define resnet8" in errors
    Path("plain.yaml").write_text(SHEET.replace("resnet8", "resnet14"))
    assert skd("expand", "plain")[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [("def f(:\n", "line 1: SyntaxError"), ("\n", "does not define FACTS and load")],
)
def test_a_broken_data_set_stops_what_uses_it_alone(skd, add: Add, text: str, words: str) -> None:
    add(sys.modules["skd.data"], text)
    assert skd("expand", "plain")[0] == 0
    listed = skd("list", "datasets")[1]
    assert words in listed
    assert "cifar100" in listed
    Path("plain.yaml").write_text(SHEET.replace("synthetic", "wip"))
    status, _, errors = skd("expand", "plain")
    assert status == 2
    assert words in errors


def test_warnings_of_a_separate_expansion_process_are_printed(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def child(command: list[str], **_: object) -> object:
        return SimpleNamespace(returncode=2, stderr="skd: warning: one\nskd: the error\n")

    monkeypatch.setattr("skd.study.expansion_files.subprocess.run", child)
    with pytest.raises(ValueError, match=r"^the error$"):
        load_expansion("plain", tmp_path / "results")
    assert capsys.readouterr().err == "skd: warning: one\n"
