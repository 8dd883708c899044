"""Losses of tensors that several rules share."""

import torch.nn.functional as F
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch


def mean_squared_error(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference of two tensors, over all elements, in float32 at least.

    Gradients flow to both sides.
    """
    return (upcast(first) - upcast(second)).square().mean()


def label_losses(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of each image's logits (B, C) with its labels, (B,).

    A mixed image has two classes: its loss is the mean of theirs, weighted by their shares
    (1710.09412, 1905.04899).
    """
    first = F.cross_entropy(logits, batch.target, reduction="none", label_smoothing=label_smoothing)
    if batch.mix is None:
        return first
    second = F.cross_entropy(
        logits, batch.second_target, reduction="none", label_smoothing=label_smoothing
    )
    return batch.mix * first + (1 - batch.mix) * second


def mean_label_loss(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean of `label_losses` over the batch; without mixing, by torch's own mean."""
    if batch.mix is None:
        return F.cross_entropy(logits, batch.target, label_smoothing=label_smoothing)
    return label_losses(logits, batch, label_smoothing).mean()
