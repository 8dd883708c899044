"""Which layer of a network draws from torch's global generator."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from skd.models.step_dropout import draw_step_seeds, step_dropouts

REMEDY = "use StepDropout of skd/models/step_dropout.py, which draws from the step's own stream"


@torch.no_grad()
def drawing_layer(network: nn.Module, images: Tensor) -> str | None:
    """Return the layer that draws from torch's global generator in a training pass.

    The pass runs on a copy, and the generator's state is restored.

    Args:
        network: on the CPU.
        images: (N, 3, H, W), at least two, since BatchNorm needs several values.

    Returns:
        Name and class of the first such layer, such as ``layer1.0.drop (Dropout)``; ``None`` if no
        layer draws. A function like ``F.dropout`` belongs to the module that calls it.
    """
    trial = copy.deepcopy(network).train()
    draw_step_seeds(step_dropouts(trial), torch.Generator().manual_seed(0))
    states: dict[nn.Module, Tensor] = {}
    found: list[str] = []

    def before(module: nn.Module, _inputs: object) -> None:
        states[module] = torch.get_rng_state()

    def after(module: nn.Module, _inputs: object, _output: object) -> None:
        # Inner modules end first, so the first module that finds another state is the innermost.
        if not found and not torch.equal(states[module], torch.get_rng_state()):
            found.append(f"{names[module] or 'forward'} ({type(module).__name__})")

    names = {module: name for name, module in trial.named_modules()}
    for module in names:
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    with torch.random.fork_rng(devices=[]):
        trial(images)
    return found[0] if found else None
