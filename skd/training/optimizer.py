"""The optimiser and its learning rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import SGD

from skd.losses.objective import Objective, trainable_parameters
from skd.study.spec import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch (1-based): decayed once for each milestone behind it."""
    passed = sum(epoch > milestone for milestone in recipe.milestones)
    return recipe.learning_rate * recipe.learning_rate_decay**passed


def make_optimizer(
    recipe: Recipe, student: nn.Module, objective: Objective, fused: bool = False
) -> SGD:
    """Return SGD over the student's and the objective's parameters, weight decay on all of them.

    Fused, a step is one kernel and the learning rate a tensor on the device: a recorded step reads
    it anew each time.
    """
    groups = [(trainable_parameters(student), 1.0), *objective.parameter_groups()]
    device = next(student.parameters()).device
    rate = torch.tensor(recipe.learning_rate, device=device) if fused else recipe.learning_rate
    optimizer = SGD(
        [{"params": parameters, "multiplier": multiplier} for parameters, multiplier in groups],
        lr=rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )
    for group in optimizer.param_groups:
        if fused:  # groups of one optimiser would share the tensor
            group["lr"] = rate.clone()
        if recipe.momentum:  # from zero it becomes the first gradient, as it would without
            for parameter in group["params"]:
                momentum = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                optimizer.state[parameter]["momentum_buffer"] = momentum
    return optimizer


def set_learning_rate(optimizer: SGD, rate: float) -> None:
    """Set an epoch's learning rate, each group's by its own multiplier."""
    for group in optimizer.param_groups:
        own = rate * group["multiplier"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
