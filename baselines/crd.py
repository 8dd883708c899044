"""CRD: contrastive representation distillation (Tian et al., ICLR 2020, 1910.10699).

The sampling law: for each anchor, independently, K images of other classes, uniformly without
replacement, as in the authors' code; with replacement where some class leaves fewer than K images
of other classes. Both sides of an image see the same negatives.

Memory: two banks of N × d float32, 51.2 MB for CIFAR-100's 50,000 images at d = 128; and while a
step runs, as much again and some ten matrices of B × N numbers (13 MB each). To score all images,
each weighed by how often it was drawn, is many times faster than to gather the 2 · B · K bank
entries of d numbers, but not where N is in the millions.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings, UnfitError


def contrast_loss(positive: Tensor, scores: Tensor, drawn: Tensor, noise: float) -> Tensor:
    """Return −[log P₊/(P₊ + c) + Σ₋ log c/(P₋ + c)], mean over the anchors (eq. 18, c = K/N).

    In log space: log P/(P + c) = logsigmoid(log P − log c).

    Args:
        positive: log P of each anchor's positive, (B,).
        scores: log P of each anchor against every image, (B, N).
        drawn: how often each image is a negative of the anchor, (B, N).
        noise: c > 0.
    """
    log_noise = math.log(noise)
    negative = (drawn * F.logsigmoid(log_noise - scores)).sum(dim=1)
    return -(F.logsigmoid(positive - log_noise) + negative).mean()


def draw_without_replacement(own: Tensor, count: int, generator: Generator) -> Tensor:
    """Return a uniformly random set of ``count`` images outside each anchor's class, as 0 and 1.

    Args:
        own: whether an image is of the anchor's class, (B, N); at least ``count`` are not.
        count: K.
        generator: on the same device.

    Returns:
        (B, N) bool, with exactly K true in a row.
    """
    # Integers of 62 bits: floats would tie at the threshold every few steps.
    keys = torch.randint(2**62, own.shape, generator=generator, device=own.device)
    keys = keys.masked_fill(own, -1)
    return keys >= keys.topk(count, dim=1, sorted=False).values.amin(dim=1, keepdim=True)


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
        drawn = self.draw(own, self.settings.negatives, generator).to(student.dtype)
        loss = self._contrast(0, student, self.teacher_bank, batch.indices, drawn)
        loss = loss + self._contrast(1, teacher, self.student_bank, batch.indices, drawn)
        self._move(self.student_bank, student, batch.indices)
        self._move(self.teacher_bank, teacher, batch.indices)
        return loss

    def _contrast(
        self, side: int, anchors: Tensor, bank: Tensor, indices: Tensor, drawn: Tensor
    ) -> Tensor:
        bank = bank.clone()  # the backward pass reads it after the update
        scores = anchors @ bank.mT / self.settings.temperature
        positive = (anchors * bank[indices]).sum(dim=1) / self.settings.temperature
        log_z = self._normaliser(side, positive.detach(), scores.detach(), drawn)
        noise = self.settings.negatives / len(bank)
        return contrast_loss(positive - log_z, scores - log_z, drawn, noise)

    @torch.no_grad()
    def _normaliser(self, side: int, positive: Tensor, scores: Tensor, drawn: Tensor) -> Tensor:
        """Return log Z: of N times the mean of exp(score), positives and negatives, at first."""
        total = positive.exp().sum() + (drawn * scores.exp()).sum()
        count = len(positive) * (self.settings.negatives + 1)
        first = (total * scores.shape[1] / count).log()
        # Fixed without asking the host.
        log_z = torch.where(self.log_normalisers[side].isnan(), first, self.log_normalisers[side])
        self.log_normalisers[side] = log_z
        return log_z

    @torch.no_grad()
    def _move(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        """Move the batch's entries towards their embeddings, on the unit sphere."""
        share = self.settings.momentum
        moved = F.normalize(share * bank[indices] + (1 - share) * embeddings, dim=1)
        bank.index_copy_(0, indices, moved)
