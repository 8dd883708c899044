"""Scalars of predicted distributions, for losses and diagnostics of transformations."""

import torch.nn.functional as F
from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of softmax(logits), in nats."""
    log_probabilities = F.log_softmax(logits, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


def kl_divergence(logits: Tensor, other_logits: Tensor) -> Tensor:
    """Return the mean over the batch of KL(softmax(logits) ‖ softmax(other_logits)), in nats."""
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other_logits, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def top1(logits: Tensor, target: Tensor) -> Tensor:
    """Return the percentage of images whose largest logit is the target's."""
    return 100 * (logits.argmax(dim=1) == target).float().mean()
