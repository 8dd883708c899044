"""Logits over the test images, and what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skd.data.images import Images
from skd.data.views import ViewMaker

# Images a forward pass: on a CPU more would leave its cache, on a GPU fewer would leave it idle.
BATCH = {"cpu": 100, "cuda": 1000}


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent; the loss is the mean cross-entropy."""

    top1: float
    top5: float
    loss: float


class Evaluator:
    """Evaluates networks on a data set's test images, kept on the device, normalised only."""

    def __init__(self, images: Images, views: ViewMaker) -> None:
        self._pixels = images.test_images.to(views.labels.device)
        self.labels = images.test_labels.to(views.labels.device)
        self._normalise = views.normalise

    @torch.no_grad()
    def logits(self, model: nn.Module) -> Tensor:
        """Return the logits of all test images in order, (M, C); the model's mode is restored."""
        training = model.training
        model.eval()
        parts = self._pixels.split(BATCH[self._pixels.device.type])
        batches = [model(self._normalise(pixels)) for pixels in parts]
        model.train(training)
        return torch.cat(batches)

    def scores(self, logits: Tensor) -> Scores:
        """Return accuracy and loss of logits (M, C) against the test labels."""
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = best == self.labels[:, None]
        return Scores(
            top1=100 * hits[:, 0].double().mean().item(),
            top5=100 * hits.any(dim=1).double().mean().item(),
            loss=F.cross_entropy(logits.double(), self.labels).item(),
        )
