"""CRD's negatives: K images of other classes for each anchor, distributed as in its authors' code.

They are drawn for each anchor independently and uniformly, without replacement; with replacement if
some class leaves fewer than K images of other classes. Two algorithms without
replacement have the same distribution: one draws from all images at once; the other draws image by
image, for data sets that are too large for the first.
"""

import math

import numpy as np
import torch
from torch import Generator, Tensor, nn

# Probability that a draw has too few images: less than once in 10¹⁰ runs with 10⁸ draws each.
RARE = 1e-18


def draw_by_topk(same_class: Tensor, count: int, generator: Generator) -> Tensor:
    """Return a uniformly random set of ``count`` images outside each anchor's class.

    Args:
        same_class: whether an image is of the anchor's class, (B, N); at least ``count`` per row
            are not.
        count: K.
        generator: a generator on the same device.

    Returns:
        (B, N) bool, with exactly K true values per row.
    """
    keys = torch.randint(2**62, same_class.shape, generator=generator, device=same_class.device)
    chosen = keys.masked_fill_(same_class, -1).topk(count, dim=1, sorted=False).indices
    return torch.zeros_like(same_class).scatter_(1, chosen, True)


def draw_by_partition(same_class: Tensor, count: int, generator: Generator) -> Tensor:
    """Return such a set on the CPU, several times faster than `draw_by_topk`."""
    while True:
        # Two 32-bit keys per word: drawing words and the partition take most of the time.
        seed = int(torch.randint(2**62, (), generator=generator))
        words = np.random.PCG64DXSM(seed).random_raw((same_class.numel() + 1) // 2)
        keys = words.view(np.uint32)[: same_class.numel()].reshape(same_class.shape)
        np.copyto(keys, 0, where=same_class.numpy())
        least = np.partition(keys, -count, axis=1)[:, -count, None]
        drawn = keys >= least
        # A tie at the threshold, in about one of a thousand steps, makes the set too large.
        if np.count_nonzero(drawn) == len(same_class) * count:
            return torch.from_numpy(drawn)


def draw_without_replacement(same_class: Tensor, count: int, generator: Generator) -> Tensor:
    """Return such a set by the algorithm that is faster on the device."""
    draw = draw_by_partition if same_class.is_cpu else draw_by_topk
    return draw(same_class, count, generator)


def draw_with_replacement(same_class: Tensor, count: int, generator: Generator) -> Tensor:
    """Return how often each image outside the anchor's class is drawn in ``count`` uniform draws.

    The arguments are those of `draw_without_replacement`; one image outside each class is enough.

    Returns:
        (B, N) float32; the sum of each row is K.
    """
    # The images of other classes come first, so that a draw is an index among them.
    outside_first = same_class.to(torch.uint8).argsort(dim=1, stable=True)
    outside = (~same_class).sum(dim=1, keepdim=True)
    words = torch.randint(
        2**62, (len(same_class), count), generator=generator, device=same_class.device
    )
    images = outside_first.gather(1, words % outside)
    counts = torch.zeros(same_class.shape, device=same_class.device)
    return counts.scatter_add_(1, images, torch.ones_like(images, dtype=counts.dtype))


class OtherClasses(nn.Module):
    """The images outside each class, for draws that do not read all images.

    Takes 8 bytes of memory per image, which are not in checkpoints.
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

        They are the first different ones of `draws_for` draws with replacement, so their
        distribution is exact. A draw with too few different images is repeated on the CPU. Other
        devices do not check it, and an image may then occur twice.

        Args:
            target: classes of the anchors, (B,).
            count: K, at most half of the images outside any class.
            generator: a generator on the same device.

        Returns:
            (B, K) indices in the training set.
        """
        draws = draws_for(count, self.fewest)
        while True:
            images = self._draw_with_replacement(target, draws, generator)
            chosen, repeated = first_different(images, count)
            if not (images.is_cpu and repeated.any()):
                return chosen

    def _draw_with_replacement(self, target: Tensor, count: int, generator: Generator) -> Tensor:
        """Return images outside each anchor's class, (B, count), some of them repeatedly."""
        sizes, starts = self.sizes[target, None], self.starts[target, None]
        shape = len(target), count
        words = torch.randint(2**62, shape, generator=generator, device=target.device)
        positions = words.remainder_(len(self.by_class) - sizes)
        positions += (positions >= starts) * sizes  # skips the images of the anchor's class
        return self.by_class[positions]


def draws_for(count: int, images: int) -> int:
    """Return how many draws with replacement give ``count`` different images.

    They give fewer with a probability of at most `RARE`: while there are fewer than ``count``, a
    draw is a new image with probability p ≥ 1 - count/images. So the probability that M draws are
    too few is at most that of a binomial (M, p) below ``count``, which Chernoff's bound limits to
    exp(-M·KL((count - 1)/M ‖ p)).

    Raises:
        ValueError: there are not more than ``count`` images.
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
    """Return each row's first ``count`` different numbers, and which of them are repeats.

    Args:
        images: (B, M), below 2³¹.
        count: K ≤ M.

    Returns:
        (B, K), in the row's order, and (B, K) bool, true only if a row has fewer than K different
        numbers.
    """
    length = images.shape[1]
    order = torch.arange(length, device=images.device)
    # Two 31-bit numbers per word: the sort groups equal images, in the order of their positions.
    words = ((images << 31) | order).sort(dim=1).values
    images, order = words >> 31, words & (2**31 - 1)
    order[:, 1:] += (images[:, 1:] == images[:, :-1]) * length  # repeats go last
    words = ((order << 31) | images).sort(dim=1).values[:, :count]
    return words & (2**31 - 1), (words >> 31) >= length
