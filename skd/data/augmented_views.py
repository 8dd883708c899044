"""Strongly augmented views of images that are stored on the device.

The batches of an epoch are augmented in blocks, before the steps that read them. Images with the
same operation are then computed together, and a step can be recorded: the number of images that
get an operation differs from batch to batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skd.data.augmentation.policies import Policy
from skd.data.prepared_views import TRAINING_VIEWS, PreparedViews, ScheduledBatch
from skd.data.views import PixelViews, view_numbers_of
from skd.randomness import random_words

# Images that are augmented together. More would take more memory; fewer would not fill a GPU.
BLOCK = {"cpu": 512, "cuda": 8192}


class AugmentedViews(PreparedViews):
    """Strongly augmented views for one training.

    A view's number is a random word. It chooses the crop and the flip, as for plain views of the
    same seed, and the policy's operations.

    Args:
        plain: the images, with their crops and flips.
        policy: the strong augmentation.
        stream: name of the random stream that chooses the views.
    """

    def __init__(self, plain: PixelViews, policy: Policy, stream: str = TRAINING_VIEWS) -> None:
        super().__init__(plain.labels, plain.size)
        self._plain, self._policy, self._random_stream = plain, policy, stream

    def draw_epoch(self, seed: int, epoch: int) -> Tensor:
        """Return the numbers of an epoch's views, (N,) int64, on the device."""
        words = random_words(seed, self._random_stream, epoch, len(self.labels))
        return torch.from_numpy(words.view(np.int64)).to(self.device)

    def prepare(self, batches: list[ScheduledBatch]) -> Iterator[Tensor]:
        """Yield the pixels of batches, a block of them at a time: see `PreparedViews.prepare`."""
        first = 0
        while first < len(batches):
            block, images = [], 0
            for batch in batches[first:]:
                block.append(batch)
                images += len(batch[0])
                if images >= BLOCK[self.device.type]:
                    break
            first += len(block)
            indices, numbers = (torch.cat(parts) for parts in zip(*block, strict=True))
            yield from self.make(indices, numbers).split([len(indices) for indices, _ in block])

    def make(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return the pixels of a batch: see `PreparedViews.make`."""
        words = numbers.cpu().numpy().view(np.uint64)
        crops = torch.from_numpy(view_numbers_of(words, self._plain.pad, self._plain.flip))
        pixels = self._plain.pixels(indices.to(self.device), crops.to(self.device))
        return self._policy(pixels, words).permute(0, 2, 3, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels, (B, 3, H, W): see `Views.normalise`."""
        return self._plain.normalise(pixels)
