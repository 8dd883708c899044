"""CRD's negatives: K images of other classes for each anchor, by the law of its authors' code.

For each anchor, independently, uniformly without replacement; with replacement where some class
leaves fewer than K images of other classes. There are two ways to draw without replacement, of the
same law: from all images at once, and, where they are too many for that, image by image.
"""

import math

import numpy as np
import torch
from torch import Generator, Tensor, nn

# Of a draw, that it falls short: in a run of 10⁸ draws, less than once in 10¹⁰ runs.
RARE = 1e-18


def draw_by_topk(own: Tensor, count: int, generator: Generator) -> Tensor:
    """Return a uniformly random set of ``count`` images outside each anchor's class.

    Args:
        own: whether an image is of the anchor's class, (B, N); at least ``count`` are not.
        count: K.
        generator: on the same device.

    Returns:
        (B, N) bool, with exactly K true in a row.
    """
    keys = torch.randint(2**62, own.shape, generator=generator, device=own.device)
    chosen = keys.masked_fill_(own, -1).topk(count, dim=1, sorted=False).indices
    return torch.zeros_like(own).scatter_(1, chosen, True)


def draw_by_partition(own: Tensor, count: int, generator: Generator) -> Tensor:
    """Return the same, on the CPU: several times faster than `draw_by_topk`."""
    while True:
        # Two keys of 32 bits in a word: with the partition, the words take most of the time.
        seed = int(torch.randint(2**62, (), generator=generator))
        words = np.random.PCG64DXSM(seed).random_raw((own.numel() + 1) // 2)
        keys = words.view(np.uint32)[: own.numel()].reshape(own.shape)
        np.copyto(keys, 0, where=own.numpy())
        least = np.partition(keys, -count, axis=1)[:, -count, None]
        drawn = keys >= least
        # A tie at the threshold, in one step of a thousand, would be a set too large.
        if np.count_nonzero(drawn) == len(own) * count:
            return torch.from_numpy(drawn)


def draw_without_replacement(own: Tensor, count: int, generator: Generator) -> Tensor:
    """Return the set as `draw_by_topk` does, in the device's faster way."""
    draw = draw_by_partition if own.is_cpu else draw_by_topk
    return draw(own, count, generator)


def draw_with_replacement(own: Tensor, count: int, generator: Generator) -> Tensor:
    """Return how often each image outside the anchor's class came in ``count`` uniform draws.

    Args and shapes are those of `draw_without_replacement`, but at least one image is outside.

    Returns:
        (B, N) float32; a row's sum is K.
    """
    # The images of other classes first, in any order: a draw is a place among them.
    outside_first = own.to(torch.uint8).argsort(dim=1, stable=True)
    outside = (~own).sum(dim=1, keepdim=True)
    words = torch.randint(2**62, (len(own), count), generator=generator, device=own.device)
    images = outside_first.gather(1, words % outside)
    counts = torch.zeros(own.shape, device=own.device)
    return counts.scatter_add_(1, images, torch.ones_like(images, dtype=counts.dtype))


class OtherClasses(nn.Module):
    """The images outside each class, to draw from without looking at all of them.

    Memory: 8 bytes an image, no part of a checkpoint.
    """

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        sizes = torch.bincount(labels)
        self.fewest = len(labels) - int(sizes.max())
        self.register_buffer("by_class", labels.argsort(stable=True), persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)

    def draw(self, target: Tensor, count: int, generator: Generator) -> Tensor:
        """Return ``count`` different images outside each anchor's class, in order of their draws.

        They are the first different ones of `draws_for` draws with replacement, so the law is
        exact. On the CPU a draw that falls short is made again; elsewhere nobody looks, and some
        image would be there twice.

        Args:
            target: classes of the anchors, (B,).
            count: K, at most half of the images outside any class.
            generator: on the same device.

        Returns:
            (B, K) places in the training set.
        """
        draws = draws_for(count, self.fewest)
        while True:
            images = self._draw_with_replacement(target, draws, generator)
            chosen, repeated = first_different(images, count)
            if not (images.is_cpu and repeated.any()):
                return chosen

    def _draw_with_replacement(self, target: Tensor, count: int, generator: Generator) -> Tensor:
        """Return images outside each anchor's class, (B, count): some more than once."""
        sizes, starts = self.sizes[target, None], self.starts[target, None]
        shape = len(target), count
        words = torch.randint(2**62, shape, generator=generator, device=target.device)
        places = words.remainder_(len(self.by_class) - sizes)
        places += (places >= starts) * sizes  # skips the images of the anchor's class
        return self.by_class[places]


def draws_for(count: int, images: int) -> int:
    """Return how many draws with replacement give ``count`` different images, but for `RARE` cases.

    As long as fewer are there, a draw brings a new one with probability p ≥ 1 - count/images. So M
    draws fall short with at most the probability that a binomial (M, p) is below count, which
    Chernoff bounds by exp(-M·KL((count - 1)/M ‖ p)).

    Raises:
        ValueError: there are not even as many images.
    """
    if count >= images:
        raise ValueError(f"expected more than {count} images, got {images}")
    p, draws = 1 - count / images, count

    def exponent(share: float) -> float:
        missed = (1 - share) * math.log((1 - share) / (1 - p))
        return missed + (share * math.log(share / p) if share else 0)

    while (share := (count - 1) / draws) >= p or draws * exponent(share) < -math.log(RARE):
        draws += math.ceil(draws / 1000)
    return draws


def first_different(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's first ``count`` different numbers, and which of them are repeats after all.

    Args:
        images: (B, M), below 2³¹.
        count: K ≤ M.

    Returns:
        (B, K) in their order in the row, and (B, K) bool: true only where a row has fewer.
    """
    length = images.shape[1]
    order = torch.arange(length, device=images.device)
    # Two numbers of 31 bits in a word: the sort brings equal images together, the first one first.
    words = ((images << 31) | order).sort(dim=1).values
    images, order = words >> 31, words & (2**31 - 1)
    order[:, 1:] += (images[:, 1:] == images[:, :-1]) * length  # repeats go last
    words = ((order << 31) | images).sort(dim=1).values[:, :count]
    return words & (2**31 - 1), (words >> 31) >= length
