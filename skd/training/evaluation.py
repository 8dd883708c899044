"""Logits of the test images, accuracy and loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skd.data import make_test_images
from skd.data.images import Images
from skd.data.views import Views
from skd.training.distributed import SingleProcess, Team


@dataclass(frozen=True)
class Scores:
    """Accuracies in percent, and the mean cross-entropy."""

    top1: float
    top5: float
    loss: float


class Evaluator:
    """Evaluates networks on the test images of a data set, which are only normalised."""

    def __init__(self, images: Images, views: Views, workers: int = 0) -> None:
        device = views.labels.device
        self._tests = make_test_images(images, device, workers)
        self.labels = images.test_labels.to(device)
        self._normalise = views.normalise

    @property
    def on_device(self) -> bool:
        """Whether an evaluation is work for the device alone, so that it can be recorded."""
        return self._tests.on_device

    @torch.no_grad()
    def logits(self, model: nn.Module, team: Team | None = None) -> Tensor:
        """Return the logits of all test images in order, (M, C); the model's mode is restored.

        Each process of a team evaluates a part of the images.
        """
        team, count = team or SingleProcess(), len(self.labels)
        each = math.ceil(count / team.world_size)
        start, stop = (min(count, place * each) for place in (team.rank, team.rank + 1))
        training = model.training
        model.eval()
        batches = [model(self._normalise(pixels)) for pixels in self._tests.batches(start, stop)]
        model.train(training)
        if team.world_size == 1:
            return torch.cat(batches)
        width = team.all_reduce_max(batches[0].shape[1] if batches else 0)
        rows = torch.zeros(each, width, device=self.labels.device)
        if batches:
            rows[: stop - start] = torch.cat(batches)
        return team.all_gather(rows)[:count]

    def scores(self, logits: Tensor) -> Scores:
        """Return accuracy and loss of logits (M, C) against the test labels."""
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = best == self.labels[:, None]
        return Scores(
            top1=100 * hits[:, 0].double().mean().item(),
            top5=100 * hits.any(dim=1).double().mean().item(),
            loss=F.cross_entropy(logits.double(), self.labels).item(),
        )
