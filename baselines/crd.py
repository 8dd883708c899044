"""CRD: contrastive representation distillation (Tian et al., ICLR 2020, 1910.10699).

The negatives' law is that of the authors' code (`_negatives.py`). Both sides of an image see the
same. A step computes the gradient by the anchors along with the loss, so that its backward pass
reads no bank.

Up to `MOST_SCORED` images, all are scored: many times faster than gathering 2 · B · K bank entries
of d numbers. Beyond, where a matrix of B × N would not fit, each anchor's K are drawn and gathered:
of the same law.

Memory: two banks of N × d float32, replicated in every process: 51.2 MB for CIFAR-100's 50,000
images at d = 128, 1.31 GB for ImageNet's 1,281,167. A step of 64 anchors at K = 16,384 takes, where
all are scored, about three matrices of B × N float32 on the CPU (45 MB for CIFAR-100) and on a GPU
twice that or more, mainly for the draw; where they are gathered, 0.2 GB (and 1.7 s on two cores).
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

# For 256 anchors, a matrix of 205 MB as float32, and of twice that for the random keys.
MOST_SCORED = 200_000
PURPOSE = "CRD's negatives"  # of the draws


class CRD(Term):
    """CE + 0.8·CRD on the pooled features, as in the authors' code (RepDistiller).

    Where batches may be divided, negatives are drawn by groups (`TermContext.group`) and Z is of
    the first batch's first group: so both are the same however a batch is divided.
    """

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
        # Where an anchor's negatives are most of the images, to score all is no waste.
        listed = len(labels) > MOST_SCORED and 2 * settings.negatives <= fewest
        self.others = OtherClasses(labels) if listed else None
        self.embed_student = nn.Linear(context.student.pooled.shape[1], width)
        self.embed_teacher = nn.Linear(context.teacher.pooled.shape[1], width)
        bound = 1 / math.sqrt(width / 3)
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(len(labels), width).uniform_(-bound, bound))
        # log Z of the student's and the teacher's anchors; NaN until the first batch fixes it.
        self.register_buffer("log_normalisers", torch.full((2,), math.nan))
        self.register_buffer("labels", labels, persistent=False)
        self.group = context.group
        # Of the step's parts so far: their place, their images' places, and both embeddings.
        self._parts: list[tuple[int, tuple[Tensor, Tensor, Tensor]]] = []

    def forward(self, batch: Batch) -> Tensor:
        """Return both sides' contrast."""
        student = F.normalize(upcast(self.embed_student(batch.student.pooled)), dim=1)
        teacher = F.normalize(upcast(self.embed_teacher(batch.teacher.pooled)), dim=1)
        negatives = self._draw(batch)
        loss = self._contrast(0, student, self.teacher_bank, batch, negatives)
        loss = loss + self._contrast(1, teacher, self.student_bank, batch, negatives)
        if self._parts and self._parts[-1][0] >= batch.first:  # of a step that was not finished
            self._parts.clear()
        moved = batch.indices, student.detach(), teacher.detach()
        self._parts.append((batch.first, moved))
        return loss

    def multiply_adds(self) -> int | None:
        """Return those of the gathered negatives; where all images are scored, the banks say it."""
        if self.others is None:
            return None
        embeddings = self.embed_student.weight.numel() + self.embed_teacher.weight.numel()
        return embeddings + 2 * self.settings.negatives * self.settings.width

    @torch.no_grad()
    def after_step(self, peers: Peers) -> None:
        """Move the entries of the batch's images in both banks, in every process alike."""
        parts = [moved for _, moved in self._parts]
        self._parts.clear()
        indices, student, teacher = (
            peers.all_gather(torch.cat(rows)) for rows in zip(*parts, strict=True)
        )
        self._move(self.student_bank, student, indices)
        self._move(self.teacher_bank, teacher, indices)

    def _draw(self, batch: Batch) -> Negatives:
        """Return the part's negatives, drawn group by group, each in a stream of its own."""
        whole = self.group is None
        size = len(batch.target) if whole else self.group
        drawn = []
        for group, target in enumerate(batch.target.split(size), start=batch.first // size):
            purpose = PURPOSE if whole else f"{PURPOSE}, group {group}"
            drawn.append(self._draw_group(target, purpose, batch))
        return (Drawn.of if self.others is None else Listed)(torch.cat(drawn))

    def _draw_group(self, target: Tensor, purpose: str, batch: Batch) -> Tensor:
        generator, count = batch.draws.generator(purpose), self.settings.negatives
        if self.others is not None:
            return self.others.draw(target, count, generator)
        return self.draw(self.labels == target[:, None], count, generator)

    def _contrast(
        self, side: int, anchors: Tensor, bank: Tensor, batch: Batch, negatives: Negatives
    ) -> Tensor:
        temperature, noise = self.settings.temperature, self.settings.negatives / len(bank)
        # Not in 16 bits: a score may be off by 0.05 there.
        with torch.no_grad(), torch.autocast(anchors.device.type, enabled=False):
            positive, negative = negatives.scores(anchors / temperature, bank, batch.indices)
            log_z = self._normaliser(side, positive, negative, negatives.times, batch.peers)
            shift = log_z + math.log(noise)
            positive, negative = positive - shift, negative.sub_(shift)
            losses, by_positive, slopes = contrast_loss(positive, negative, negatives.times)
            gradient = negatives.pull(slopes, bank) + by_positive[:, None] * bank[batch.indices]
            gradient /= temperature * len(anchors)
        return WithGradient.apply(anchors, losses.mean(), gradient)

    def _normaliser(
        self, side: int, positive: Tensor, negative: Tensor, times: Tensor | None, peers: Peers
    ) -> Tensor:
        """Return log Z: of N times the mean of exp(score), positives and negatives, at first."""
        fixed = self.log_normalisers[side]
        if fixed.is_cpu and not fixed.isnan():
            return fixed
        rows = slice(self.group)
        total = negative[rows].exp()
        total = total if times is None else total.mul_(times[rows])
        total = positive[rows].exp().sum() + total.sum()
        count = len(positive[rows]) * (self.settings.negatives + 1)
        first = peers.broadcast_tensor((total * len(self.labels) / count).log())
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
