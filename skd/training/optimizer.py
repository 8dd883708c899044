"""The optimiser of a run, and its learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from skd.losses.objective import Objective, ParameterGroup, trainable_parameters
from skd.study.spec import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch (from 1), decayed after each milestone."""
    passed = sum(epoch > milestone for milestone in recipe.milestones)
    return recipe.learning_rate * recipe.learning_rate_decay**passed


def make_optimizer(
    recipe: Recipe, student: nn.Module, objective: Objective, fused: bool = False
) -> SGD:
    """Return SGD over the parameters of student and objective, with weight decay on all of them.

    Each group of the objective's parameters has its own factor on the learning rate, and may have
    its own weight decay.

    If it is fused, a step is one kernel, and the learning rate is a tensor on the device. A
    recorded step reads its current value.
    """
    groups = [ParameterGroup(trainable_parameters(student)), *objective.parameter_groups()]
    device = next(student.parameters()).device
    rate = torch.tensor(recipe.learning_rate, device=device) if fused else recipe.learning_rate
    optimizer = SGD(
        [_options(group, recipe) for group in groups],
        lr=rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )
    for group in optimizer.param_groups:
        if fused:  # the groups would otherwise share the tensor
            group["lr"] = rate.clone()
        if recipe.momentum:  # starting from zeros equals SGD's own start
            for parameter in group["params"]:
                momentum = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                optimizer.state[parameter]["momentum_buffer"] = momentum
    return optimizer


def _options(group: ParameterGroup, recipe: Recipe) -> dict[str, Any]:
    decay = recipe.weight_decay if group.weight_decay is None else group.weight_decay
    return {
        "params": group.parameters,
        "multiplier": group.learning_rate_multiplier,
        "weight_decay": decay,
    }


def set_learning_rate(optimizer: SGD, rate: float) -> None:
    """Set the learning rate of an epoch. Each group has its own multiplier."""
    for group in optimizer.param_groups:
        group_rate = rate * group["multiplier"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(group_rate)
        else:
            group["lr"] = group_rate
