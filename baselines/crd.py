"""CRD: contrastive representation distillation (Tian et al., ICLR 2020, 1910.10699).

The sampling law: for each anchor, independently, K images of other classes, uniformly without
replacement, as in the authors' code; with replacement where some class leaves fewer than K images
of other classes. Both sides of an image see the same negatives.

All images are scored, not 2 · B · K gathered bank entries of d numbers: many times faster, but not
where N is in the millions. A step computes the gradient by the anchors along with the loss, so that
its backward pass reads no bank.

Memory: two banks of N × d float32, 51.2 MB for CIFAR-100's 50,000 images at d = 128; and while a
step runs, about three matrices of B × N float32 on the CPU (45 MB for B = 64, K = 16,384), and on a
GPU twice that or more, mainly for the draw.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn
from torch.autograd.function import Function, FunctionCtx, once_differentiable

from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


def contrast_loss(
    positive: Tensor, negative: Tensor, times: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's −[log P₊/(P₊ + c) + Σ₋ log c/(P₋ + c)], and its derivatives.

    Eq. 18 of the paper, with c = K/N. In log space: log c/(P + c) = −softplus(log P/c).

    Args:
        positive: log P/c of each anchor's positive, (B,).
        negative: log P/c of each anchor against images, (B, M).
        times: how often each of these is a negative of the anchor, (B, M); by default once.

    Returns:
        The losses, (B,); their derivatives by ``positive``, (B,), and by ``negative``, (B, M).
    """
    # From 40 on, log(1 + exp(x)) is x in float64 too.
    terms, slopes = F.softplus(negative, threshold=40), torch.sigmoid(negative)
    if times is not None:
        terms, slopes = terms.mul_(times), slopes.mul_(times)
    losses = F.softplus(-positive, threshold=40) + terms.sum(dim=1)
    return losses, -torch.sigmoid(-positive), slopes


class _WithGradient(Function):
    """A value whose gradient by one input is computed along with it."""

    @staticmethod
    def forward(ctx: FunctionCtx, by: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


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


class Negatives(NamedTuple):
    """Each anchor's K images, (B, K); or, if none, how often each of all images came, (B, N)."""

    images: Tensor | None
    times: Tensor | None

    @classmethod
    def of(cls, drawn: Tensor) -> "Negatives":
        """Return what was drawn, (B, N), in the form that its device works on faster."""
        # On CUDA, to scatter back to all images deterministically is to sort.
        if drawn.dtype != torch.bool or not drawn.is_cpu:
            return cls(None, drawn)
        places = torch.from_numpy(np.flatnonzero(drawn.numpy())).view(len(drawn), -1)
        rows = torch.arange(len(drawn))[:, None]
        return cls(places.sub_(rows * drawn.shape[1]), None)


class CRD(Term):
    """CE + 0.8·CRD on the pooled features, as in the authors' code (RepDistiller)."""

    class Settings(TermSettings):
        """CRD's settings."""

        weight: float = 0.8
        negatives: PositiveInt = Field(16384, description="K, drawn for each anchor")
        width: PositiveInt = Field(128, description="d, of the embeddings")
        temperature: PositiveFloat = Field(0.07, description="τ of the scores")
        momentum: float = Field(0.5, ge=0, lt=1, description="share that a bank's entry keeps")

    needs = frozenset({"teacher_pooled"})
    version = 2  # 2: other keys behind the draws on the CPU

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        labels, width = context.train_labels, settings.width
        fewest = len(labels) - int(torch.bincount(labels).max())
        if fewest == 0:
            raise UnfitError("CRD needs training images of at least two classes")
        self.draw = (
            draw_with_replacement if fewest < settings.negatives else draw_without_replacement
        )
        self.embed_student = nn.Linear(context.student.pooled.shape[1], width)
        self.embed_teacher = nn.Linear(context.teacher.pooled.shape[1], width)
        bound = 1 / math.sqrt(width / 3)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(len(labels), width).uniform_(-bound, bound))
        # log Z of the student's and the teacher's anchors; NaN until the first batch fixes it.
        self.register_buffer("log_normalisers", torch.full((2,), math.nan))
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Return both sides' contrast, and move the batch's entries of the banks."""
        student = F.normalize(upcast(self.embed_student(batch.student.pooled)), dim=1)
        teacher = F.normalize(upcast(self.embed_teacher(batch.teacher.pooled)), dim=1)
        own = self.labels == batch.target[:, None]
        generator = batch.draws.generator("CRD's negatives")
        drawn = self.draw(own, self.settings.negatives, generator)
        negatives = Negatives.of(drawn)
        loss = self._contrast(0, student, self.teacher_bank, batch.indices, negatives)
        loss = loss + self._contrast(1, teacher, self.student_bank, batch.indices, negatives)
        self._move(self.student_bank, student, batch.indices)
        self._move(self.teacher_bank, teacher, batch.indices)
        return loss

    def _contrast(
        self, side: int, anchors: Tensor, bank: Tensor, indices: Tensor, negatives: Negatives
    ) -> Tensor:
        images, times = negatives
        temperature, noise = self.settings.temperature, self.settings.negatives / len(bank)
        # Not in 16 bits: a score may be off by 0.05 there.
        with torch.no_grad(), torch.autocast(anchors.device.type, enabled=False):
            scores = (anchors / temperature) @ bank.mT
            positive = scores.gather(1, indices[:, None]).squeeze(1)
            negative = scores if images is None else scores.gather(1, images)
            shift = self._normaliser(side, positive, negative, times) + math.log(noise)
            positive, negative = positive - shift, negative.sub_(shift)
            losses, by_positive, slopes = contrast_loss(positive, negative, times)
            if images is not None:
                slopes = scores.zero_().scatter_(1, images, slopes)
            gradient = slopes @ bank + by_positive[:, None] * bank[indices]
            gradient /= temperature * len(anchors)
        return _WithGradient.apply(anchors, losses.mean(), gradient)

    def _normaliser(
        self, side: int, positive: Tensor, negative: Tensor, times: Tensor | None
    ) -> Tensor:
        """Return log Z: of N times the mean of exp(score), positives and negatives, at first."""
        fixed = self.log_normalisers[side]
        if fixed.is_cpu and not fixed.isnan():
            return fixed
        total = negative.exp()
        total = positive.exp().sum() + (total if times is None else total.mul_(times)).sum()
        count = len(positive) * (self.settings.negatives + 1)
        first = (total * len(self.labels) / count).log()
        # Fixed without asking a GPU.
        log_z = torch.where(fixed.isnan(), first, fixed)
        self.log_normalisers[side] = log_z
        return log_z

    @torch.no_grad()
    def _move(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        """Move the batch's entries towards their embeddings, on the unit sphere."""
        share = self.settings.momentum
        moved = F.normalize(share * bank[indices] + (1 - share) * embeddings, dim=1)
        bank.index_copy_(0, indices, moved)
