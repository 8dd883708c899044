"""A new baseline from its skeleton."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from skd.authoring.scaffold import BaselineNameError, write_baseline
from skd.losses.methods import method_names


def test_the_skeletons_are_filled_in_for_the_name(tmp_path: Path) -> None:
    rule, test = write_baseline("my_rule_2", method_names(), root=tmp_path)
    assert rule == tmp_path / "baselines" / "my_rule_2.py"
    assert test == tmp_path / "tests" / "baselines" / "test_my_rule_2.py"
    for path in (rule, test):
        assert "$" not in path.read_text()
    classes = [node.name for node in ast.parse(rule.read_text()).body if hasattr(node, "bases")]
    assert classes == ["MyRule2"]
    assert "from baselines.my_rule_2 import my_rule_2_loss" in test.read_text()


@pytest.mark.parametrize("name", ["My", "1st", "a-b", "_helper", "lambda", "", "a.b", "../a"])
def test_what_cannot_be_a_modules_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaselineNameError, match="not a name for a baseline's file"):
        write_baseline(name, [], root=tmp_path)
    assert not list(tmp_path.rglob("*.py"))


def test_a_taken_name_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    with pytest.raises(BaselineNameError, match="a method 'kd' exists already"):
        write_baseline("kd", method_names(), root=tmp_path)
    (tmp_path / "tests" / "baselines").mkdir(parents=True)
    (tmp_path / "tests" / "baselines" / "test_mine.py").write_text("precious")
    with pytest.raises(BaselineNameError, match="exists already"):
        write_baseline("mine", [], root=tmp_path)
    assert (tmp_path / "tests" / "baselines" / "test_mine.py").read_text() == "precious"
    assert not (tmp_path / "baselines").exists()
