"""BatchNorm in training: batches are counted once a step, and groups have a fixed size.

Common practice normalises the images of each GPU together, so that the statistics, and with them
the numbers, depend on the number of GPUs. In this project the size of a group is a part of the
recipe (`bn_batch`): a batch of 512 in groups of 64 is what 8 GPUs would compute. The running
statistics move once a step, by the mean over all groups. DistributedDataParallel would take those
of the first GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skd.training.distributed import Team

Replacement = TypeVar("Replacement", bound=nn.BatchNorm2d)


class BatchNorms:
    """The BatchNorm2d layers of a run, replaced by the forms that its steps need.

    Args:
        module: changed in place; its parameters stay the same objects.
        group: images that are normalised together; ``None``: all images of a forward pass.
        count_together: whether one kernel counts the batches of all layers. Grouped layers count
            for themselves.
    """

    def __init__(self, module: nn.Module, group: int | None, count_together: bool) -> None:
        self._grouped = use_grouped_batch_norms(module, group) if group else []
        self._counted = use_counted_batch_norms(module) if count_together and not group else []

    def after_step(self, team: Team) -> None:
        """Update running statistics and counters after all parts of a batch."""
        if self._grouped:
            update_running_stats(self._grouped, team)
        count_batches(self._counted)


class CountedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that leaves the counting of batches to `count_batches`.

    The counter has no influence if the momentum is a number, and one kernel for all layers is
    cheaper than one kernel for each. Parameters, buffers and state dict are those of the layer
    that it replaces.
    """

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers():
            setattr(self, name, buffer)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalises consecutive images in groups of a fixed size.

    Parameters and state dict are those of the layer that it replaces. In training, call
    `update_running_stats` after each step.
    """

    def __init__(self, layer: nn.BatchNorm2d, group: int) -> None:
        kind = {"device": layer.running_mean.device, "dtype": layer.running_mean.dtype}
        super().__init__(layer.num_features, layer.eps, layer.momentum, **kind)
        self.weight, self.bias, self.group = layer.weight, layer.bias, group
        self.load_state_dict(layer.state_dict())
        self.train(layer.training)
        # Sums over the images of a step: mean of the group, variance of the group, and 1.
        self.register_buffer(
            "step_sums", torch.zeros(2 * layer.num_features + 1, **kind), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); the last group may be smaller."""
        if not self.training:
            return super().forward(x)
        groups = [self._normalised(part) for part in x.split(self.group)]
        return groups[0] if len(groups) == 1 else torch.cat(groups)

    def _normalised(self, x: Tensor) -> Tensor:
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        with torch.no_grad():
            self.step_sums += len(x) * torch.cat([mean, variance, mean.new_ones(1)])
        return out

    @torch.no_grad()
    def update_running_stats(self) -> None:
        """Move the running statistics by those of the step, and reset the sums of the step."""
        images = self.step_sums[-1]
        mean, variance = (self.step_sums[:-1] / images.clamp(min=1)).chunk(2)
        share = self.momentum * (images > 0)  # a layer that saw no image does not change
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
        self.num_batches_tracked += images > 0
        self.step_sums.zero_()


def use_grouped_batch_norms(module: nn.Module, group: int) -> list[GroupedBatchNorm2d]:
    """Replace every BatchNorm2d in a module by its grouped form; return the replacements.

    Args:
        module: changed in place; its parameters stay the same objects.
        group: images that are normalised together.
    """
    return _replace_layers(module, lambda layer: GroupedBatchNorm2d(layer, group))


def use_counted_batch_norms(module: nn.Module) -> list[CountedBatchNorm2d]:
    """Replace every BatchNorm2d in a module by its counted form; return the replacements.

    A layer that averages over all batches needs its own counter and is not replaced.
    """
    return _replace_layers(
        module,
        lambda layer: (
            CountedBatchNorm2d(layer)
            if layer.track_running_stats and layer.momentum is not None
            else None
        ),
    )


def _replace_layers(
    module: nn.Module, make_replacement: Callable[[nn.BatchNorm2d], Replacement | None]
) -> list[Replacement]:
    replacements = []
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is not nn.BatchNorm2d:
                continue
            if (replacement := make_replacement(child)) is not None:
                replacements.append(replacement)
                setattr(parent, name, replacement)
    return replacements


@torch.no_grad()
def count_batches(layers: Sequence[CountedBatchNorm2d]) -> None:
    """Add one batch to the counters of some layers."""
    if layers:
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], 1)


def update_running_stats(layers: Sequence[GroupedBatchNorm2d], team: Team) -> None:
    """Move the running statistics of some layers by those of all processes' images."""
    team.all_reduce_sum([layer.step_sums for layer in layers])
    for layer in layers:
        layer.update_running_stats()
