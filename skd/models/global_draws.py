"""Which layer of a network draws from a global generator: torch's, NumPy's or Python's."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import torch
from torch import Tensor, nn

from skd.models.step_dropout import draw_step_seeds, step_dropouts

REMEDY = "use StepDropout of skd/models/step_dropout.py, which draws from the step's own stream"


@torch.no_grad()
def drawing_layer(network: nn.Module, images: Tensor) -> str | None:
    """Return the layer that draws from a global generator in a training pass.

    The pass runs on a copy, and the generators' states are restored.

    Args:
        network: on the CPU.
        images: (N, 3, H, W), at least two, since BatchNorm needs several values.

    Returns:
        Name and class of the first such layer, such as ``layer1.0.drop (Dropout)``; ``None`` if no
        layer draws. A function like ``F.dropout`` belongs to the module that calls it.
    """
    trial = copy.deepcopy(network).train()
    draw_step_seeds(step_dropouts(trial), torch.Generator().manual_seed(0))
    states: dict[nn.Module, bytes] = {}
    found: list[str] = []

    def before(module: nn.Module, _inputs: object) -> None:
        states[module] = _generator_states()

    def after(module: nn.Module, _inputs: object, _output: object) -> None:
        # Inner modules end first, so the first module that finds another state is the innermost.
        if not found and states[module] != _generator_states():
            found.append(f"{names[module] or 'forward'} ({type(module).__name__})")

    names = {module: name for name, module in trial.named_modules()}
    for module in names:
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        trial(images)
    random.setstate(python)
    np.random.set_state(numpy)
    return found[0] if found else None


def _generator_states() -> bytes:
    """Return the states of the global generators, to compare."""
    others = random.getstate(), np.random.get_state()
    return torch.get_rng_state().numpy().tobytes() + pickle.dumps(others)
