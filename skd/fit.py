"""Whether a run's losses fit its networks, found out before anything is trained or loaded."""

from __future__ import annotations

import json
from functools import cache

import torch
from torch import Tensor

from skd.data.images import Facts
from skd.errors import UnfitError
from skd.models import Outputs, build_model
from skd.objective import Objective
from skd.randomness import seeded
from skd.spec import MethodSpec, RunSpec, canonical
from skd.terms import TermContext


def misfit(spec: RunSpec, facts: Facts) -> str | None:
    """Return why a run's method cannot work on its networks and data, or none."""
    teacher = spec.teacher.network if spec.teacher else None
    method = json.dumps(canonical(spec.method), sort_keys=True)
    return _misfit(method, teacher, spec.network, facts)


@cache
def _misfit(method: str, teacher: str | None, student: str, facts: Facts) -> str | None:
    context = TermContext(
        num_classes=facts.num_classes,
        train_labels=_labels(facts),
        seed=0,
        student=_shapes(student, facts),
        teacher=_shapes(teacher, facts) if teacher else None,
    )
    try:
        _build(MethodSpec.restore(json.loads(method)), context)
    except UnfitError as error:
        return str(error)
    return None


def _build(method: MethodSpec, context: TermContext) -> None:
    try:
        with torch.device("meta"):  # takes neither memory nor time
            Objective(method, context)
    except (NotImplementedError, RuntimeError):  # not everything works there
        Objective(method, context)


@cache
def _labels(facts: Facts) -> Tensor:
    return torch.arange(facts.train_images) % facts.num_classes


@cache
def _shapes(network: str, facts: Facts) -> Outputs:
    # Not on "meta": its first normal_() or batch norm imports torch's compiler, for seconds.
    with torch.no_grad(), seeded(0, "shapes"):
        model = build_model(network, facts.num_classes).eval()
        return model.forward_features(torch.zeros(1, 3, facts.size, facts.size))
