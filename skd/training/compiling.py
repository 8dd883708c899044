"""Networks' passes through ``torch.compile``: fewer kernels, which keep lanes from waiting.

What is generated is a function of the source alone: nothing is measured on the device to choose
between kernels, so that another process computes the same bits.
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
    """Passes could not be compiled. Says why."""

    @classmethod
    def of(cls, error: Exception) -> CompilerError:
        """Return an error of one line, made from a compiler's."""
        lines = str(error).strip().splitlines() or [""]
        return cls(f"{type(error).__name__}: {lines[0]}"[:MAX_MESSAGE_LETTERS])


ForwardPass = Callable[[Tensor], Outputs]
# Whether the loss has a gradient by each of the outputs: logits, pooled, stages, pre-activations.
GradientMask = tuple[bool, ...]
Flat = tuple[Tensor, ...]
# Lanes and methods of a process share compiled code. Beyond this many variants (networks, sizes,
# outputs reached) torch would quietly go back to eager passes.
MAX_COMPILED_VARIANTS = 256
MAX_MESSAGE_LETTERS = 300


def compile_network(network: FeatureNetwork, mask: GradientMask | None = None) -> ForwardPass:
    """Return a network's passes, compiled at their first call.

    Args:
        network: with all its layers; they may not be replaced afterwards.
        mask: as `outputs_with_gradient` returned it. The compiler computes a gradient for every output
            that can have one, and would add up zeros for the others. None: no gradient is needed.
    """
    run = _compiler()
    # Each thread has settings of its own, and each lane is a thread.
    torch._dynamo.config.recompile_limit = MAX_COMPILED_VARIANTS
    torch._dynamo.config.fail_on_recompile_limit_hit = True

    def passes(images: Tensor) -> Outputs:
        flat, stages = run(network, images, mask)
        logits, pooled, *maps = flat
        return Outputs(logits, tuple(maps[:stages]), tuple(maps[stages:]), pooled)

    return passes


@cache
def _compiler() -> Callable[..., tuple[Flat, int]]:
    """Return the compiled pass, which all networks of the process share."""
    return torch.compile(_flat_pass, fullgraph=True, dynamic=False, options=_options())


def _options() -> dict[str, Any]:
    """Return options that keep measurements out of the generated code.

    They are limited to those that this version of torch has.
    """
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
    network: FeatureNetwork, images: Tensor, reached: GradientMask | None
) -> tuple[Flat, int]:
    outputs = network.forward_features(images)
    flat = flatten_outputs(outputs)
    if reached is not None:
        flat = tuple(
            tensor if reaches else tensor.detach()
            for tensor, reaches in zip(flat, reached, strict=True)
        )
    return flat, len(outputs.stages)


def flatten_outputs(outputs: Outputs) -> Flat:
    """Return logits, pooled feature, stages and pre-activations as one tuple."""
    return outputs.logits, outputs.pooled, *outputs.stages, *outputs.preactivations


def outputs_with_gradient(loss_of: Callable[[Outputs], Tensor], outputs: Outputs) -> GradientMask:
    """Return by which outputs a loss has a gradient.

    Args:
        loss_of: returns the loss of a network's outputs, a scalar.
        outputs: of the network; no gradient goes further than to them.
    """
    leaves = [tensor.detach().requires_grad_() for tensor in flatten_outputs(outputs)]
    logits, pooled, *maps = leaves
    stages = len(outputs.stages)
    loss = loss_of(Outputs(logits, tuple(maps[:stages]), tuple(maps[stages:]), pooled))
    if not loss.requires_grad:
        return (False,) * len(leaves)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return tuple(gradient is not None for gradient in found)
