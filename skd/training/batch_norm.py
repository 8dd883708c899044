"""BatchNorm as training uses it: batches are counted once a step, and groups have a fixed size.

Common practice takes each GPU's share of a batch together: the statistics, and so the numbers,
depend on how many GPUs there are. Here the group is part of the recipe (`bn_batch`), and a batch of
512 in groups of 64 is what 8 GPUs would make of it. The running statistics move once a step, by the
mean of all groups': DistributedDataParallel would follow those of the first GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skd.training.distributed import Team

Replacement = TypeVar("Form", bound=nn.BatchNorm2d)


class CountedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that leaves the counting of batches to `count_batches`.

    The counter decides nothing where the momentum is a number, and one kernel for all layers is
    less than one a layer. Parameters, buffers and state dict are those of the layer that it takes
    the place of.
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
    """BatchNorm2d whose statistics are those of consecutive images, so many at a time.

    Its parameters and its state dict are those of the layer that it takes the place of. In
    training, call `move` after each step.
    """

    def __init__(self, layer: nn.BatchNorm2d, group: int) -> None:
        kind = {"device": layer.running_mean.device, "dtype": layer.running_mean.dtype}
        super().__init__(layer.num_features, layer.eps, layer.momentum, **kind)
        self.weight, self.bias, self.group = layer.weight, layer.bias, group
        self.load_state_dict(layer.state_dict())
        self.train(layer.training)
        # Sums over the step's images: of their group's mean, of its variance, of 1.
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
        """Move the running statistics by the step's, and begin the next step's."""
        images = self.step_sums[-1]
        mean, variance = (self.step_sums[:-1] / images.clamp(min=1)).chunk(2)
        share = self.momentum * (images > 0)  # a layer that was not asked stays
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
        self.num_batches_tracked += images > 0
        self.step_sums.zero_()


def use_grouped_batch_norms(module: nn.Module, group: int) -> list[GroupedBatchNorm2d]:
    """Give every BatchNorm2d within a module its grouped form; return these.

    Args:
        module: changed in place; its parameters stay the same objects.
        group: images whose statistics are taken together.
    """
    return _replaced(module, lambda layer: GroupedBatchNorm2d(layer, group))


def use_counted_batch_norms(module: nn.Module) -> list[CountedBatchNorm2d]:
    """Give every BatchNorm2d within a module its counted form; return these, as above.

    A layer that averages over all batches needs its own counter, and is left as it is.
    """
    return _replaced(
        module,
        lambda layer: (
            CountedBatchNorm2d(layer)
            if layer.track_running_stats and layer.momentum is not None
            else None
        ),
    )


def _replaced(
    module: nn.Module, form: Callable[[nn.BatchNorm2d], Replacement | None]
) -> list[Replacement]:
    made = []
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d and (replacement := form(child)) is not None:
                made.append(replacement)
                setattr(parent, name, replacement)
    return made


@torch.no_grad()
def count_batches(layers: Sequence[CountedBatchNorm2d]) -> None:
    """End a step: every layer has seen one batch more."""
    if layers:
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], 1)


def update_running_stats(layers: Sequence[GroupedBatchNorm2d], team: Team) -> None:
    """End a step: the running statistics move by those of all processes' images."""
    team.add([layer.step_sums for layer in layers])
    for layer in layers:
        layer.update_running_stats()
