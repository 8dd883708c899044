"""Forward passes of networks through ``torch.compile``, which launches fewer kernels.

The generated code is a function of the source alone. No kernel is chosen by a measurement on the
device, so that another process computes the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from skd.common.errors import SkdError
from skd.models.network import FeatureNetwork, Outputs


class CompilerError(SkdError):
    """A forward pass could not be compiled. Says why."""

    @classmethod
    def of(cls, error: Exception) -> CompilerError:
        """Return the error of a compiler as one line."""
        lines = str(error).strip().splitlines() or [""]
        return cls(f"{type(error).__name__}: {lines[0]}"[:MAX_MESSAGE_LETTERS])


ForwardPass = Callable[[Tensor], Outputs]
# Whether each output has a gradient: logits, pooled, stages, pre-activations.
GradientMask = tuple[bool, ...]
Flat = tuple[Tensor, ...]
# Lanes and methods of a process share compiled code. Beyond this number of variants (networks,
# sizes, gradient masks) torch would silently run eager passes.
MAX_COMPILED_VARIANTS = 256
MAX_MESSAGE_LETTERS = 300


def compile_network(network: FeatureNetwork, mask: GradientMask | None = None) -> ForwardPass:
    """Return the forward pass of a network, compiled at its first call.

    Args:
        network: its layers must not be replaced afterwards.
        mask: from `outputs_with_gradient`. The compiler would otherwise also compute the gradients
            of the other outputs, which are zero. ``None``: no gradient is needed.
    """
    run = _compiler()
    # Each thread has its own settings, and each lane is a thread.
    torch._dynamo.config.recompile_limit = MAX_COMPILED_VARIANTS
    torch._dynamo.config.fail_on_recompile_limit_hit = True

    def forward_pass(images: Tensor) -> Outputs:
        flat, stages = run(network, images, mask)
        logits, pooled, *maps = flat
        return Outputs(logits, tuple(maps[:stages]), tuple(maps[stages:]), pooled)

    return forward_pass


@cache
def _compiler() -> Callable[..., tuple[Flat, int]]:
    """Return the compiled function, which all networks of the process share."""
    return torch.compile(_flat_pass, fullgraph=True, dynamic=False, options=_options())


def _options() -> dict[str, Any]:
    """Return the options of this version of torch that keep measurements out of the code."""
    from torch._inductor import config

    wanted = {
        "deterministic": True,
        "max_autotune": False,
        "coordinate_descent_tuning": False,
        "benchmark_fusion": False,
        "shape_padding": False,
        "triton.autotune_pointwise": False,
        "triton.cudagraphs": False,  # the whole step is recorded instead
    }
    known = config.get_config_copy()
    return {name: value for name, value in wanted.items() if name in known}


def _flat_pass(
    network: FeatureNetwork, images: Tensor, mask: GradientMask | None
) -> tuple[Flat, int]:
    outputs = network.forward_features(images)
    flat = flatten_outputs(outputs)
    if mask is not None:
        flat = tuple(
            tensor if has_gradient else tensor.detach()
            for tensor, has_gradient in zip(flat, mask, strict=True)
        )
    return flat, len(outputs.stages)


def flatten_outputs(outputs: Outputs) -> Flat:
    """Return logits, pooled feature, stages and pre-activations as one tuple."""
    return outputs.logits, outputs.pooled, *outputs.stages, *outputs.preactivations


def outputs_with_gradient(loss_of: Callable[[Outputs], Tensor], outputs: Outputs) -> GradientMask:
    """Return which outputs a loss has a gradient with respect to.

    Args:
        loss_of: returns the loss of a network's outputs, a scalar.
        outputs: of the network. The gradient stops there.
    """
    leaves = [tensor.detach().requires_grad_() for tensor in flatten_outputs(outputs)]
    logits, pooled, *maps = leaves
    stages = len(outputs.stages)
    loss = loss_of(Outputs(logits, tuple(maps[:stages]), tuple(maps[stages:]), pooled))
    if not loss.requires_grad:
        return (False,) * len(leaves)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return tuple(gradient is not None for gradient in gradients)
