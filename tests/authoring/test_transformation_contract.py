"""Transformations keep the contract; broken ones are reported. Errors are short."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

import baselines
import skd.expansion.dry_run
from skd.authoring.contract import TRIAL_PAIRS, check_contract
from skd.authoring.findings import Finding
from skd.authoring.settings_check import check_settings
from skd.cli.authoring import check_baseline
from skd.losses import discovery
from skd.losses.discovery import transformation_classes
from skd.losses.transformation import TransformationSettings

FIRST = " → ".join(TRIAL_PAIRS[0])


# test_mutations.py tries those of the simplifier, and test_contract.py every method.
@pytest.mark.parametrize("name", sorted(set(transformation_classes()) - {"simplifier"}))
def test_every_setting_is_described_and_changes_a_run(name: str) -> None:
    findings = list(check_settings(name, TRIAL_PAIRS[:1]))
    assert [finding for finding in findings if finding.problem or finding.refused] == []
    settings = transformation_classes()[name].Settings
    own = set(settings.model_fields) - set(TransformationSettings.model_fields)
    assert {finding.subject for finding in findings} == {f"setting {field}" for field in own}


# Broken transformations. Each of the rules below fails one check.

RULE = """
import torch
from pydantic import Field
from torch import nn
from skd.terms import Transformation, TransformationSettings


class Rule(Transformation):
    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.linear = nn.Linear(context.num_classes, context.num_classes)

    def forward(self, batch):
        return batch.teacher.logits + self.linear(batch.teacher.logits)
"""
FORWARD = "return batch.teacher.logits + self.linear(batch.teacher.logits)"
COUPLED = "batch.teacher.logits.mean(dim=0)"
OWN_LOSS = """
    def own_loss(self, batch, logits):
        return logits.mean(dim=0).square().mean()
"""
IDLE = """
    class Settings(TransformationSettings):
        idle: float = Field(1.0, description="changes nothing")
        bare: int = 3
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write baselines/wip.py, for this test."""
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])

    def forget() -> None:
        discovery._discover.cache_clear()
        skd.expansion.dry_run._profile_or_problem.cache_clear()
        sys.modules.pop("baselines.wip", None)

    def write(text: str) -> None:
        (tmp_path / "wip.py").write_text(text)
        forget()

    yield write
    forget()


def quick(name: str = "wip") -> dict[str, Finding]:
    """Return what a quick check finds with KD, and of the settings, by the check's place."""
    return {
        f"{finding.subject}: {finding.check}": finding
        for method, finding in check_contract(name, quick=True)
        if method == name
    }


def test_a_sound_one_passes_every_check(write) -> None:
    write(RULE)
    findings = list(check_contract("wip", quick=True))
    assert [finding for _, finding in findings if finding.problem] == []
    assert {method for method, _ in findings} == {"wip", "wip-dkd"}
    assert {finding.subject for _, finding in findings} == {FIRST}


@pytest.mark.parametrize(
    ("text", "check", "words"),
    [
        (RULE.replace(FORWARD, f"{FORWARD} + {COUPLED}"), "declares partition_problem", "logits"),
        (RULE + OWN_LOSS, "declares partition_problem", "own losses"),
        (
            RULE.replace(FORWARD, f"{FORWARD} + 0 * batch.teacher.pooled.sum()"),
            "declares its needs",
            "reads more of the teacher",
        ),
        (
            RULE.replace(FORWARD, f"{FORWARD} * batch.epoch"),
            "declares reads_epoch",
            "sets a buffer in `begin_epoch`",
        ),
        (RULE.replace("+ self.linear", "+ 0 * self.linear"), "two steps", "no gradient"),
        (RULE.replace(FORWARD, f"{FORWARD} * torch.rand(())"), "repeats", "global generator"),
    ],
)
def test_a_broken_one_is_reported(write, text: str, check: str, words: str) -> None:
    write(text)
    problems = {place: finding.problem for place, finding in quick().items() if finding.problem}
    assert list(problems) == [f"{FIRST}: {check}"]  # the first problem ends a quick check
    assert words in problems[f"{FIRST}: {check}"]


def test_one_that_says_why_its_batch_cannot_be_divided_may_couple_images(write) -> None:
    partition = "\n    def partition_problem(self, part_size):\n        return 'all attend'\n"
    write(RULE.replace(FORWARD, f"{FORWARD} + {COUPLED}") + partition)
    assert not [finding for finding in quick().values() if finding.problem]


def test_settings_without_description_or_effect_are_reported(write) -> None:
    write(RULE.replace("class Rule(Transformation):\n", f"class Rule(Transformation):{IDLE}\n"))
    problems = [finding.problem for finding in check_settings("wip", TRIAL_PAIRS[:1])]
    assert "no other value changes what the training does" in problems[0]
    assert "it has no description" in problems[1]


# Errors.

MISTAKES = {
    "in forward": (RULE.replace("batch.teacher.logits +", "batch.teacher.logitz +"), "two steps"),
    "in __init__": (RULE.replace("context.num_classes, ", "context.classes, "), "fits"),
}


@pytest.mark.parametrize("place", MISTAKES)
def test_an_error_is_its_message_and_the_line_of_the_file(write, place: str) -> None:
    text, check = MISTAKES[place]
    write(text)
    first = quick()[f"{FIRST}: {check}"]
    message, line = first.problem.splitlines()
    assert message.startswith("AttributeError: ")
    number = next(
        i for i, row in enumerate(text.splitlines(), 1) if "logitz" in row or ".classes," in row
    )
    assert f"wip.py, line {number}, {place}: " in line
    assert first.traceback.startswith("Traceback")


@pytest.mark.parametrize("place", MISTAKES)
def test_an_error_is_printed_once(write, capsys: pytest.CaptureFixture[str], place: str) -> None:
    write(MISTAKES[place][0])
    outputs = []
    for options in ({"quick": True}, {}, {"quick": True, "traceback": True}):
        with pytest.raises(typer.Exit) as stopped:
            check_baseline("wip", **{"quick": False, "traceback": False, **options})
        assert stopped.value.exit_code == 1
        outputs.append(capsys.readouterr().out)
    short, whole, long = outputs
    assert short.splitlines()[-1].startswith("wip: 1 broken, 0 ok, 0 refused")
    assert "The same error in 15 other checks." in whole
    assert "wip: 16 broken, 0 ok, 1 refused (--traceback" in whole.splitlines()[-1]
    assert len(short.splitlines()) < len(whole.splitlines()) < 10
    assert long.count("Traceback (most recent call last)") == 1
