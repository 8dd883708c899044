"""SoTeacher: a teacher that is trained for its students (Dong et al. 2022, 2206.06661).

The formulas follow the authors' code (shwinshaker/SoTeacher).
"""

from collections.abc import Iterable

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from baselines._precision import upcast
from skd.terms import Batch, Peers, Term, TermContext, TermSettings, UnfitError


class SoTeacher(Term):
    """Consistency of an image's predictions, and a sum of the layers' Lipschitz constants.

    The loss is α(e)·mean_n Σ_c (p_nc − q_nc)² + λ·Lip, beside cross-entropy. q is the running mean
    of the image's earlier predictions p; it takes no gradient. In epoch e of E, α(e) = α·e/E, and 0
    in the first epoch. Each step moves q towards p at the rate 1/(e + 1), and at rate 1 in the
    first epoch.

    Memory: N × C float32 in every process, 20 MB for CIFAR-100.
    """

    class Settings(TermSettings):
        """SoTeacher's settings."""

        consistency: NonNegativeFloat = Field(
            1.0,
            description="weight of the consistency in the last epoch; it rises linearly",
        )
        lipschitz: NonNegativeFloat = Field(
            1e-5, description="weight of the sum of the layers' Lipschitz constants"
        )

    # It reads no class, but a mixed image's prediction belongs to no single image.
    reads_target = True

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.network, self.epochs = context.network, context.epochs
        shape = len(context.train_labels), context.num_classes
        self.register_buffer("mean_predictions", torch.zeros(shape))
        self.register_buffer("consistency", torch.zeros(()), persistent=False)
        self.register_buffer("rate", torch.ones(()), persistent=False)
        # Of each part of the current step: `Batch.first`, image indices, and predictions.
        self._parts: list[tuple[int, tuple[Tensor, Tensor]]] = []

    def begin_epoch(self, epoch: int) -> None:
        """Set the weight of the consistency and the rate of the running mean.

        Raises:
            UnfitError: the context does not have the number of epochs.
        """
        if self.epochs is None:
            raise UnfitError("soteacher needs the number of epochs: give `epochs`")
        is_first = epoch == 1
        self.consistency.fill_(0.0 if is_first else self.settings.consistency * epoch / self.epochs)
        self.rate.fill_(1.0 if is_first else 1 / (epoch + 1))

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the consistency and the Lipschitz constants."""
        predictions = upcast(batch.student.logits).softmax(dim=1)
        earlier = self.mean_predictions[batch.indices]
        # An image of a dropped batch has no earlier prediction yet, and so no penalty.
        distances = (predictions - earlier).square().sum(dim=1) * _is_seen(earlier)
        if self._parts and self._parts[-1][0] >= batch.first:  # left by an unfinished step
            self._parts.clear()
        self._parts.append((batch.first, (batch.indices, predictions.detach())))
        lipschitz = lipschitz_sum(self.network.module.modules())
        return self.consistency * distances.mean() + self.settings.lipschitz * lipschitz

    def multiply_adds(self) -> int:
        """Return the multiply-adds of one image: its running mean."""
        return self.mean_predictions.shape[1]

    @torch.no_grad()
    def after_step(self, peers: Peers) -> None:
        """Move the running means of the batch's images, equally in every process."""
        parts = [values for _, values in self._parts]
        self._parts.clear()
        indices, predictions = (
            peers.all_gather(torch.cat(rows)) for rows in zip(*parts, strict=True)
        )
        means = self.mean_predictions[indices]
        predictions = predictions.to(means.dtype)
        moved = means.lerp(predictions, self.rate)
        means = torch.where(_is_seen(means)[:, None], moved, predictions)
        self.mean_predictions.index_copy_(0, indices, means)


def _is_seen(means: Tensor) -> Tensor:
    """Return which rows of running means (B, C) have had a prediction, (B,)."""
    return means.sum(dim=1) > 0


def lipschitz_sum(modules: Iterable[nn.Module]) -> Tensor:
    """Return the sum of the layers' Lipschitz constants, as the authors' code bounds them.

    A convolution counts Σ|w|; BatchNorm max_c |γ_c| / √(running variance_c + ε); a linear layer
    the largest column sum of |W|. Biases do not count. Other layers add nothing.

    Args:
        modules: of the network, at least one of these layers.
    """
    constants = []
    for module in modules:
        if isinstance(module, nn.Conv2d):
            constants.append(module.weight.abs().sum())
        elif isinstance(module, nn.BatchNorm2d):
            deviation = (module.running_var + module.eps).sqrt()
            constants.append((module.weight.abs() / deviation).amax())
        elif isinstance(module, nn.Linear):
            constants.append(module.weight.abs().sum(dim=0).amax())
    return torch.stack(constants).sum()
