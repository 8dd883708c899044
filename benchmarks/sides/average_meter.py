"""Running metrics that are read at every step, as in common distillation code."""

from __future__ import annotations

from torch import Tensor


class AverageMeter:
    """A running mean."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, value: float, count: int) -> None:
        """Add the mean of ``count`` values."""
        self.sum += value * count
        self.count += count

    @property
    def mean(self) -> float:
        """The mean so far."""
        return self.sum / self.count


def update_meters(
    meters: dict[str, AverageMeter], loss: float, logits: Tensor, target: Tensor
) -> None:
    """Add a batch's loss and accuracies, in percent, to ``loss``, ``top1`` and ``top5``.

    Args:
        meters: the three meters.
        loss: mean loss of the batch.
        logits: (B, C).
        target: class labels, (B,).
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == target[:, None]
    size = len(target)
    meters["loss"].update(loss, size)
    meters["top1"].update(100 * hits[:, 0].sum().item() / size, size)
    meters["top5"].update(100 * hits.any(dim=1).sum().item() / size, size)
