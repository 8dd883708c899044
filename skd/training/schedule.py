"""The optimiser and its learning rate."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD

from skd.objective import Objective, trainable
from skd.spec import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch (1-based): decayed once for each milestone behind it."""
    passed = sum(epoch > milestone for milestone in recipe.milestones)
    return recipe.learning_rate * recipe.learning_rate_decay**passed


def make_optimizer(recipe: Recipe, student: nn.Module, objective: Objective) -> SGD:
    """Return SGD over the student's and the objective's parameters, weight decay on all of them."""
    groups = [(trainable(student), 1.0), *objective.parameter_groups()]
    return SGD(
        [{"params": parameters, "multiplier": multiplier} for parameters, multiplier in groups],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def set_learning_rate(optimizer: SGD, rate: float) -> None:
    """Set an epoch's learning rate, each group's by its own multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]
