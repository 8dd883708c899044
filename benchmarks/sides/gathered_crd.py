"""CRD as the field computes it: the negatives' bank entries gathered, anchor by anchor.

Written from the formula (Tian et al., ICLR 2020, 1910.10699, eq. 18, c = K/N). The product's own
term (``baselines/crd.py``) has the same value for the same negatives, by another way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skd.losses.term import Batch, Term, TermContext, TermSettings


@dataclass(frozen=True, kw_only=True)
class BatchWithNegatives(Batch):
    """A batch whose loader has drawn the negatives: (B, K) places in the training set."""

    negatives: Tensor


class GatheredCRD(Term):
    """Both sides' contrast against gathered bank entries.

    Memory: the entries of a step, 2 · B · (K + 1) · d float32: 1.07 GB at 64, 16,384 and 128.

    Args:
        settings: of the term of `baselines/`.
        context: as any term's; of the same seed, the same initial weights and banks.
    """

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        width, count = settings.width, len(context.train_labels)
        self.embed_student = nn.Linear(context.student.pooled.shape[1], width)
        self.embed_teacher = nn.Linear(context.teacher.pooled.shape[1], width)
        bound = 1 / math.sqrt(width / 3)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(count, width).uniform_(-bound, bound))
        self.normalisers: dict[str, float] = {}  # Z of either side's anchors

    def forward(self, batch: BatchWithNegatives) -> Tensor:
        """Return the sum of both sides' contrasts, and move the batch's entries of the banks."""
        student = F.normalize(self.embed_student(batch.student.pooled), dim=1)
        teacher = F.normalize(self.embed_teacher(batch.teacher.pooled), dim=1)
        places = torch.cat([batch.indices[:, None], batch.negatives], dim=1)
        # Both are gathered before either bank moves.
        against_teacher = self._gather(self.teacher_bank, places)
        against_student = self._gather(self.student_bank, places)
        loss = self._contrast("student", student, against_teacher)
        loss = loss + self._contrast("teacher", teacher, against_student)
        self._move(self.student_bank, student, batch.indices)
        self._move(self.teacher_bank, teacher, batch.indices)
        return loss

    def _gather(self, bank: Tensor, places: Tensor) -> Tensor:
        """Return the entries at (B, 1 + K) places, the positive's first: (B, 1 + K, d)."""
        return bank.index_select(0, places.flatten()).view(*places.shape, -1)

    def _contrast(self, side: str, anchors: Tensor, entries: Tensor) -> Tensor:
        """Return −[log P₊/(P₊ + c) + Σ₋ log c/(P₋ + c)], mean over the anchors (B, d)."""
        scores = torch.bmm(entries, anchors[:, :, None])[:, :, 0]
        likelihoods = (scores / self.settings.temperature).exp()
        if side not in self.normalisers:  # the first batch fixes Z = N times the mean
            mean = likelihoods.detach().mean().item()
            self.normalisers[side] = mean * len(self.teacher_bank)
        likelihoods = likelihoods / self.normalisers[side]
        noise = self.settings.negatives / len(self.teacher_bank)
        positive, negative = likelihoods[:, 0], likelihoods[:, 1:]
        told_apart = (positive / (positive + noise)).log().sum()
        told_apart = told_apart + (noise / (negative + noise)).log().sum()
        return -told_apart / len(anchors)

    @torch.no_grad()
    def _move(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        share = self.settings.momentum
        moved = share * bank.index_select(0, indices) + (1 - share) * embeddings
        bank.index_copy_(0, indices, F.normalize(moved, dim=1))
