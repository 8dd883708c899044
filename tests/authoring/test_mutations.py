"""Every option that all terms share, and every one of the simplifier, changes a run."""

from __future__ import annotations

from typing import Any

import pytest

from baselines.simplifier import SimplifierSettings
from skd.authoring.contract import TRIAL_PAIRS
from skd.authoring.trial import (
    MethodTrial,
    make_teacher,
    run_trial,
    same_student,
    same_tensors,
    trial_spec,
)
from skd.losses.methods import resolve_method
from skd.losses.term import TermSettings
from skd.study.sheet import SheetMethod


def ends(first: dict[str, Any], second: dict[str, Any]) -> tuple[MethodTrial, MethodTrial]:
    """Train two methods for two steps on the first pair."""
    specs = [
        trial_spec(resolve_method(SheetMethod(name="m", **written), {}), *TRIAL_PAIRS[0])
        for written in (first, second)
    ]
    one, other = (run_trial(spec, make_teacher(spec)) for spec in specs)
    assert specs[0].identity != specs[1].identity
    return one, other


COMMON = {
    "weight": 0.5,
    "warmup_epochs": 3,
    "teacher": "simplified",
    "standardise": True,
    "cross_entropy": 0.7,
}
PARAMETERS = {"learning_rate_multiplier": 0.5, "weight_decay": 0.5}  # of the term's own modules


@pytest.mark.parametrize("field", COMMON)
def test_every_common_setting_changes_a_run(field: str) -> None:
    assert set(COMMON) | set(PARAMETERS) == set(TermSettings.model_fields)
    # Start from a simplifier that is not the identity.
    extra = {"simplifier": {"output_init": "default"}}
    plain = {"terms": [{"term": "kd"}, {"term": "mlkd", "teacher": "simplified"}], **extra}
    changed = {**plain, "settings": {"kd": {field: COMMON[field]}}}
    assert not same_student(*ends(plain, changed))


@pytest.mark.parametrize("field", PARAMETERS)
def test_every_setting_of_a_terms_parameters_changes_a_run(field: str) -> None:
    plain = {"like": "vid", "settings": {"vid": {"weight": 10.0}}}
    changed = {"like": "vid", "settings": {"vid": {"weight": 10.0, field: PARAMETERS[field]}}}
    one, other = ends(plain, changed)
    states = (trial.training.objective.state_dict() for trial in (one, other))
    assert not same_tensors(*states)


SIMPLIFIER = {
    "temperature": 2.0,
    "softening": "scaled",
    "axis": "classes",
    "group": 3,
    "heads": 2,
    "width": 4,
    "layer_norm": False,
    "values": "rows",
    "combination": "mean",
    "output_init": "zero",
    "trainable": False,
    "objective": "anchored",
    "anchor": 5.0,
    "learning_rate_multiplier": 0.5,
    "weight_decay": 0.5,
}


@pytest.mark.parametrize("field", SIMPLIFIER)
def test_every_option_of_the_simplifier_changes_a_run(field: str) -> None:
    assert set(SIMPLIFIER) == set(SimplifierSettings.model_fields)
    base: dict[str, Any] = {"output_init": "default", "learning_rate_multiplier": 1.0}
    if field == "anchor":
        base["objective"] = "anchored"
    plain = {"like": "skd", "simplifier": base}
    changed = {"like": "skd", "simplifier": {**base, field: SIMPLIFIER[field]}}
    assert not same_student(*ends(plain, changed))
