"""CRD as it is commonly computed: the bank entries of the negatives are gathered for each anchor.

Source: Tian et al., ICLR 2020, arXiv 1910.10699, eq. 18, with c = K/N. This project's term
(``baselines/crd.py``) computes the same value for the same negatives in another way.
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
    """A batch whose loader has drawn the negatives: (B, K) indices into the training set."""

    negatives: Tensor


class GatheredCRD(Term):
    """The contrastive loss of both sides against gathered bank entries.

    The entries of a step need 2 · B · (K + 1) · d float32 values: 1.07 GB for B = 64, K = 16,384
    and d = 128.

    Args:
        settings: settings of the term in `baselines/`.
        context: context of the term. The same seed gives the same initial weights and banks.
    """

    def __init__(self, settings: TermSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        width, count = settings.width, len(context.train_labels)
        self.embed_student = nn.Linear(context.student.pooled.shape[1], width)
        self.embed_teacher = nn.Linear(context.teacher.pooled.shape[1], width)
        bound = 1 / math.sqrt(width / 3)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(count, width).uniform_(-bound, bound))
        self.normalisers: dict[str, float] = {}  # Z of each side's anchors

    def forward(self, batch: BatchWithNegatives) -> Tensor:
        """Return the sum of both sides' losses, and update the batch's entries in the banks."""
        student = F.normalize(self.embed_student(batch.student.pooled), dim=1)
        teacher = F.normalize(self.embed_teacher(batch.teacher.pooled), dim=1)
        indices = torch.cat([batch.indices[:, None], batch.negatives], dim=1)
        # Gather from both banks before updating either.
        against_teacher = self._gather(self.teacher_bank, indices)
        against_student = self._gather(self.student_bank, indices)
        loss = self._contrast("student", student, against_teacher)
        loss = loss + self._contrast("teacher", teacher, against_student)
        self._update_bank(self.student_bank, student, batch.indices)
        self._update_bank(self.teacher_bank, teacher, batch.indices)
        return loss

    def _gather(self, bank: Tensor, indices: Tensor) -> Tensor:
        """Return the entries (B, 1 + K, d) at indices (B, 1 + K), the positive's first."""
        return bank.index_select(0, indices.flatten()).view(*indices.shape, -1)

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
        log_likelihood = (positive / (positive + noise)).log().sum()
        log_likelihood = log_likelihood + (noise / (negative + noise)).log().sum()
        return -log_likelihood / len(anchors)

    @torch.no_grad()
    def _update_bank(self, bank: Tensor, embeddings: Tensor, indices: Tensor) -> None:
        momentum = self.settings.momentum
        entries = momentum * bank.index_select(0, indices) + (1 - momentum) * embeddings
        bank.index_copy_(0, indices, F.normalize(entries, dim=1))
