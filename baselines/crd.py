"""CRD: contrastive representation distillation (Tian et al., ICLR 2020, 1910.10699).

The negatives are distributed as in the authors' code (`_negatives.py`). The student's and the
teacher's anchor of an image have the same negatives. The forward pass also computes the gradient
with respect to the anchors, so that the backward pass does not read the banks.

With up to `MOST_SCORED` training images, all images are scored, which is many times faster than
gathering 2 · B · K bank entries of d numbers. With more images, a matrix of B × N would be too
large: each anchor's K negatives are gathered, with the same distribution.

Memory: two banks of N × d float32 in every process, 51.2 MB for CIFAR-100's 50,000 images at
d = 128 and 1.31 GB for ImageNet's 1,281,167. Scoring all images, a step of 64 anchors at K = 16,384
needs about three matrices of B × N float32 on the CPU (45 MB for CIFAR-100) and at least twice as
much on a GPU, mainly for the draw. Gathering needs 0.2 GB (and takes 1.7 s on two cores).
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from baselines._contrast import Drawn, Listed, Negatives, WithGradient, contrast_loss
from baselines._negatives import OtherClasses, draw_with_replacement, draw_without_replacement
from baselines._precision import upcast
from skd.terms import Batch, Peers, Term, TermContext, TermSettings, UnfitError

# With 256 anchors, a float32 matrix of 205 MB, and one of 410 MB for the random keys.
MOST_SCORED = 200_000
PURPOSE = "CRD's negatives"  # of the draws


class CRD(Term):
    """CE + 0.8·CRD on the pooled features, as in the authors' code (RepDistiller).

    If batches may be divided, negatives are drawn separately for each group (`TermContext.group`),
    and the normaliser Z is computed from the first group of the first batch. So both do not depend
    on how a batch is divided.
    """

    class Settings(TermSettings):
        """CRD's settings."""

        weight: float = 0.8
        negatives: PositiveInt = Field(16384, description="K, number of negatives per anchor")
        width: PositiveInt = Field(128, description="d, width of the embeddings")
        temperature: PositiveFloat = Field(0.07, description="τ of the scores")
        momentum: float = Field(
            0.5, ge=0, lt=1, description="weight of a bank's old entry when it is updated"
        )

    needs = frozenset({"teacher_pooled"})
    version = 2  # version 2 draws other random keys on the CPU

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        labels, width = context.train_labels, settings.width
        fewest = len(labels) - int(torch.bincount(labels).max())
        if fewest == 0:
            raise UnfitError("CRD needs training images of at least two classes")
        self.draw = (
            draw_with_replacement if fewest < settings.negatives else draw_without_replacement
        )
        # If most images are negatives of an anchor, scoring all of them wastes little.
        listed = len(labels) > MOST_SCORED and 2 * settings.negatives <= fewest
        self.others = OtherClasses(labels) if listed else None
        self.embed_student = nn.Linear(context.student.pooled.shape[1], width)
        self.embed_teacher = nn.Linear(context.teacher.pooled.shape[1], width)
        bound = 1 / math.sqrt(width / 3)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(len(labels), width).uniform_(-bound, bound))
        # log Z of the student's and the teacher's anchors; NaN until the first batch sets it.
        self.register_buffer("log_normalisers", torch.full((2,), math.nan))
        self.register_buffer("labels", labels, persistent=False)
        self.group = context.group
        # Of each part of the current step: `Batch.first`, image indices, and both embeddings.
        self._parts: list[tuple[int, tuple[Tensor, Tensor, Tensor]]] = []

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of the student's and the teacher's contrastive loss."""
        student = F.normalize(upcast(self.embed_student(batch.student.pooled)), dim=1)
        teacher = F.normalize(upcast(self.embed_teacher(batch.teacher.pooled)), dim=1)
        negatives = self._draw(batch)
        loss = self._contrast(0, student, self.teacher_bank, batch, negatives)
        loss = loss + self._contrast(1, teacher, self.student_bank, batch, negatives)
        if self._parts and self._parts[-1][0] >= batch.first:  # left by an unfinished step
            self._parts.clear()
        embeddings = batch.indices, student.detach(), teacher.detach()
        self._parts.append((batch.first, embeddings))
        return loss

    def multiply_adds(self) -> int | None:
        """Return the multiply-adds with gathered negatives, else ``None``: the banks count."""
        if self.others is None:
            return None
        embeddings = self.embed_student.weight.numel() + self.embed_teacher.weight.numel()
        return embeddings + 2 * self.settings.negatives * self.settings.width

    @torch.no_grad()
    def after_step(self, peers: Peers) -> None:
        """Update the entries of the batch's images in both banks, equally in every process."""
        parts = [embeddings for _, embeddings in self._parts]
        self._parts.clear()
        indices, student, teacher = (
            peers.all_gather(torch.cat(rows)) for rows in zip(*parts, strict=True)
        )
        self._move(self.student_bank, student, indices)
        self._move(self.teacher_bank, teacher, indices)

    def _draw(self, batch: Batch) -> Negatives:
        """Return the negatives of the batch, with a separate random stream for each group."""
        undivided = self.group is None
        size = len(batch.target) if undivided else self.group
        drawn = []
        for group, target in enumerate(batch.target.split(size), start=batch.first // size):
            purpose = PURPOSE if undivided else f"{PURPOSE}, group {group}"
            drawn.append(self._draw_group(target, purpose, batch))
        return (Drawn.from_counts if self.others is None else Listed)(torch.cat(drawn))

    def _draw_group(self, target: Tensor, purpose: str, batch: Batch) -> Tensor:
        generator, count = batch.draws.generator(purpose), self.settings.negatives
        if self.others is not None:
            return self.others.draw(target, count, generator)
        return self.draw(self.labels == target[:, None], count, generator)

    def _contrast(
        self, side: int, anchors: Tensor, bank: Tensor, batch: Batch, negatives: Negatives
    ) -> Tensor:
        temperature, noise = self.settings.temperature, self.settings.negatives / len(bank)
        # Not in 16 bits, where the error of a score may be 0.05.
        with torch.no_grad(), torch.autocast(anchors.device.type, enabled=False):
            positive, negative = negatives.scores(anchors / temperature, bank, batch.indices)
            log_z = self._normaliser(side, positive, negative, negatives.counts, batch.peers)
            shift = log_z + math.log(noise)
            positive, negative = positive - shift, negative.sub_(shift)
            losses, positive_slopes, slopes = contrast_loss(positive, negative, negatives.counts)
            gradient = (
                negatives.weighted_sums(slopes, bank)
                + positive_slopes[:, None] * bank[batch.indices]
            )
            gradient /= temperature * len(anchors)
        return WithGradient.apply(anchors, losses.mean(), gradient)

    def _normaliser(
        self, side: int, positive: Tensor, negative: Tensor, counts: Tensor | None, peers: Peers
    ) -> Tensor:
        """Return log Z, constant after the first batch: Z is N times its mean of exp(score)."""
        known = self.log_normalisers[side]
        if known.is_cpu and not known.isnan():
            return known
        rows = slice(self.group)
        total = negative[rows].exp()
        total = total if counts is None else total.mul_(counts[rows])
        total = positive[rows].exp().sum() + total.sum()
        count = len(positive[rows]) * (self.settings.negatives + 1)
        first = peers.broadcast_tensor((total * len(self.labels) / count).log())
        # Chosen on the device: reading the value would wait for a GPU.
        log_z = torch.where(known.isnan(), first, known)
        self.log_normalisers[side] = log_z
        return log_z

    @torch.no_grad()
    def _move(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        """Move the entries of images towards their embeddings, on the unit sphere."""
        momentum = self.settings.momentum
        entries = F.normalize(momentum * bank[indices] + (1 - momentum) * embeddings, dim=1)
        bank.index_copy_(0, indices, entries)
