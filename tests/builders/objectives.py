"""Methods by their names, their objectives, and a batch for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from skd.losses.methods import resolve_method
from skd.losses.objective import Objective
from skd.losses.term import Batch, Term, TermContext, TermSettings
from skd.models.network import Outputs
from skd.randomness import Draws
from skd.study.sheet import SheetMethod
from skd.study.spec import MethodSpec
from tests.builders.losses import draw

CLASSES = 7


def chosen(method: str | dict[str, Any], **shared: Any) -> MethodSpec:
    written = {"name": method} if isinstance(method, str) else {"name": "mine", **method}
    return resolve_method(SheetMethod.model_validate(written), shared)


def make_objective(spec: MethodSpec, epoch: int = 1) -> Objective:
    nothing = Outputs(torch.zeros(1, CLASSES), (), (), torch.zeros(1, CLASSES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        objective = Objective(
            spec, TermContext(CLASSES, torch.arange(9), 0, nothing, nothing)
        ).double()
    objective.begin_epoch(epoch)
    return objective


def objective_on(spec: MethodSpec, batch: Batch, epoch: int = 1) -> Objective:
    """Return a method's objective in float64, for outputs of a batch's shapes, in an epoch."""
    classes = batch.student.logits.shape[1]
    labels = torch.arange(10 * classes) % classes
    context = TermContext(classes, labels, 0, batch.student, batch.teacher)
    objective = Objective(spec, context).double()
    objective.begin_epoch(epoch)
    return objective


def make_batch(epoch: int = 1, count: int = 5) -> Batch:
    student, teacher = (draw(seed, (count, CLASSES), 3.0) for seed in (1, 2))
    student.requires_grad_()
    outputs = [Outputs(x, (), (), x) for x in (student, teacher)]
    return Batch(*outputs, torch.arange(count) % CLASSES, torch.arange(count), epoch, Draws(0))


def terms(spec: MethodSpec) -> list[tuple[str, float, str]]:
    return [(t.term, t.settings["weight"], t.settings["teacher"]) for t in spec.terms]


SEEN = ("raw", "simplified")


# A term with parameters, as a new baseline would bring.


class Learned(Term):
    class Settings(TermSettings):
        weight: float = 3.0
        cross_entropy: float = 2.0

    def __init__(self, own: Settings, context: TermContext) -> None:
        super().__init__(own, context)
        self.layer = nn.Linear(context.num_classes, 1)
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, batch: Batch) -> Tensor:
        return self.layer(batch.student.logits).mean()
