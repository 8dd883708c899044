"""The optimiser of a run, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from skd.losses.objective import Objective, ParameterGroup, trainable_parameters
from skd.study.spec import Recipe
from skd.training.checkpoint import ForeignStateError


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the learning rate of an epoch e (from 1), which is constant within the epoch.

    Of a training of E epochs, the first W are the warm-up. With the recipe's learning rate r:

    - ``steps``: r · d^m · min(e/W, 1), with the decay d and m milestones before e.
    - ``cosine``: r · e/W in the warm-up, then m + (r - m)/2 · (1 + cos(π · (e - W - 1)/(E - W)))
      with the minimum m. The first epoch after the warm-up has r, and the last one is one step
      before m (SGDR without restarts, 1608.03983, eq. 5).
    """
    base, warmup = recipe.learning_rate, recipe.warmup_epochs
    if recipe.schedule == "cosine":
        if epoch <= warmup:
            return base * (epoch / warmup)
        minimum = recipe.minimum_learning_rate
        progress = (epoch - warmup - 1) / (recipe.epochs - warmup)
        return minimum + (base - minimum) * (1 + math.cos(math.pi * progress)) / 2
    passed = sum(epoch > milestone for milestone in recipe.milestones)
    decayed = base * recipe.learning_rate_decay**passed
    return decayed * (epoch / warmup) if epoch < warmup else decayed


def make_optimizer(
    recipe: Recipe, student: nn.Module, objective: Objective, fused: bool = False
) -> Optimizer:
    """Return the recipe's optimiser of the student's and the objective's parameters.

    Each group of the objective's parameters has its own factor on the learning rate, and may have
    its own weight decay. All parameters decay.

    If it is fused, a step is one kernel, and the learning rate is a tensor on the device. A
    recorded step reads its current value. All tensors that a step changes exist from the start.
    """
    groups = [ParameterGroup(trainable_parameters(student)), *objective.parameter_groups()]
    options = [_options(group, recipe) for group in groups]
    device = next(student.parameters()).device
    rate = torch.tensor(recipe.learning_rate, device=device) if fused else recipe.learning_rate
    make = {"sgd": _sgd, "adamw": _adamw}[recipe.optimizer]
    optimizer = make(options, rate, recipe, fused)
    if fused:
        for group in optimizer.param_groups:  # the groups would otherwise share the tensor
            group["lr"] = rate.clone()
    return optimizer


def _sgd(
    options: list[dict[str, Any]], rate: float | Tensor, recipe: Recipe, fused: bool
) -> Optimizer:
    optimizer = SGD(
        options,
        lr=rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )
    if recipe.momentum:  # starting from zeros equals SGD's own start
        for parameter in _parameters(optimizer):
            optimizer.state[parameter]["momentum_buffer"] = _zeros_like(parameter)
    return optimizer


def _adamw(
    options: list[dict[str, Any]], rate: float | Tensor, recipe: Recipe, fused: bool
) -> Optimizer:
    on_device = fused and isinstance(rate, Tensor) and rate.device.type != "cpu"
    optimizer = AdamW(
        options,
        lr=rate,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=fused,
        capturable=on_device,
    )
    # A recording first runs a few steps without capture, of which AdamW would warn.
    optimizer._warned_capturable_if_run_uncaptured = True
    for parameter in _parameters(optimizer):  # as AdamW starts
        device = parameter.device if fused else "cpu"
        optimizer.state[parameter].update(
            step=torch.zeros((), dtype=torch.float32, device=device),
            exp_avg=_zeros_like(parameter),
            exp_avg_sq=_zeros_like(parameter),
        )
    return optimizer


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _zeros_like(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, memory_format=torch.preserve_format)


def _options(group: ParameterGroup, recipe: Recipe) -> dict[str, Any]:
    decay = recipe.weight_decay if group.weight_decay is None else group.weight_decay
    return {
        "params": group.parameters,
        "multiplier": group.learning_rate_multiplier,
        "weight_decay": decay,
    }


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the tensors that a step of the optimiser changes, by name, without the parameters."""
    return {
        f"{name} {place}": value
        for place, values in enumerate(optimizer.state.values())
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state that ``optimizer.state_dict()`` returned.

    Raises:
        ForeignStateError: it is the state of another optimiser.
    """
    stored, own = (_kind(groups[0]) for groups in (state["param_groups"], optimizer.param_groups))
    if stored != own:
        raise ForeignStateError(f"its optimiser is {stored}, and the recipe of this run has {own}")
    optimizer.load_state_dict(dict(state))


def _kind(group: Mapping[str, Any]) -> str:
    """Return the optimiser that a group's options belong to."""
    return "adamw" if "betas" in group else "sgd"


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of an epoch. Each group has its own multiplier."""
    for group in optimizer.param_groups:
        group_rate = rate * group["multiplier"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(group_rate)
        else:
            group["lr"] = group_rate
