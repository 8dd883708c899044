"""A new term and a new transformation from their skeletons."""

from __future__ import annotations

import ast
import inspect
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
from skd.authoring.contract import check_contract
from skd.authoring.scaffold import BaselineNameError, write_skeletons
from skd.losses import discovery
from skd.losses.methods import method_names
from tests.builders.paths import ROOT

KINDS = ("term", "transformation")


@pytest.mark.parametrize("kind", KINDS)
def test_the_skeletons_are_filled_in_for_the_name(tmp_path: Path, kind: str) -> None:
    rule, test = write_skeletons(kind, "my_rule_2", method_names(), root=tmp_path)
    assert rule == tmp_path / "baselines" / "my_rule_2.py"
    assert test == tmp_path / "tests" / "baselines" / "test_my_rule_2.py"
    for path in (rule, test):
        assert "$" not in path.read_text()
    classes = [node for node in ast.parse(rule.read_text()).body if hasattr(node, "bases")]
    assert [(node.name, node.bases[0].id) for node in classes] == [("MyRule2", kind.capitalize())]
    assert "my_rule_2" in test.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_skeletons_pass_their_tests_and_the_checks_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rule, test = write_skeletons(kind, "my_rule", method_names(), root=tmp_path)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(rule.parent)])
    discovery._discover.cache_clear()
    try:
        for name, function in runpy.run_path(str(test)).items():
            if name.startswith("test_"):
                function(**dict.fromkeys(inspect.signature(function).parameters, 0.5))
        findings = [finding for _, finding in check_contract("my_rule", quick=True)]
        assert [finding for finding in findings if finding.problem or finding.refused] == []
        assert f"setting {'scale' if kind == 'term' else 'weight'}" in {f.subject for f in findings}
    finally:
        discovery._discover.cache_clear()
        sys.modules.pop("baselines.my_rule", None)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    unsorted = "--extend-ignore=I001"  # which imports are the project's is not known there
    for command in (["check", unsorted], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "baselines", "tests"]
        subprocess.run(ruff, cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", ["My", "1st", "a-b", "_helper", "lambda", "", "a.b", "../a"])
def test_what_cannot_be_a_modules_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaselineNameError, match="not a name for a baseline's file"):
        write_skeletons("term", name, [], root=tmp_path)
    assert not list(tmp_path.rglob("*.py"))


def test_a_taken_name_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    with pytest.raises(BaselineNameError, match="a method 'kd' exists already"):
        write_skeletons("term", "kd", method_names(), root=tmp_path)
    (tmp_path / "tests" / "baselines").mkdir(parents=True)
    (tmp_path / "tests" / "baselines" / "test_mine.py").write_text("precious")
    with pytest.raises(BaselineNameError, match="exists already"):
        write_skeletons("transformation", "mine", [], root=tmp_path)
    assert (tmp_path / "tests" / "baselines" / "test_mine.py").read_text() == "precious"
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize("name", ["raw", "simplified", "terms", "classifier", "forward"])
def test_a_name_with_another_meaning_is_no_transformations(skd, name: str) -> None:
    status, out, error = skd("new-transformation", name)
    assert (status, out) == (2, "")
    assert f"'{name}' cannot be the name of a transformation: it has another meaning" in error
