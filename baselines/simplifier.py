"""SKD's changes to the teacher's logits: softening, then the learning simplifier.

Student-friendly Knowledge Distillation, arXiv 2305.10893. This project knows only the abstract:
teacher logits are softened by a temperature, then simplified by an attention mechanism that is
trained jointly with the student by the distillation loss. Everything else is an assumption of this
project (A1 to A8, docs/assumptions.md), and each assumption is a setting of this module.

The simplifier transforms teacher logits, so any loss on teacher logits can use the simplified ones.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from baselines._distributions import entropy, kl_divergence, top1
from skd.terms import (
    Batch,
    TermContext,
    Transformation,
    TransformationSettings,
    UnfitError,
    added_later,
)


class SimplifierSettings(TransformationSettings):
    """Settings for the assumptions A1 to A4, A6 and A7."""

    temperature: PositiveFloat = Field(
        4.0, description="temperature T by which the logits are divided"
    )
    softening: Literal["log_softmax", "scaled", "softmax"] = Field(
        "log_softmax", description="A1: log-softmax of z/T, z/T itself (scaled), or softmax of z/T"
    )
    axis: Literal["batch", "classes"] = Field(
        "batch", description="A2: tokens are the samples of the batch, or each sample's classes"
    )
    group: PositiveInt | None = added_later(
        None,
        neutral=None,
        description="A7: number of consecutive images of a batch that attend to each other, so "
        "that a batch can be divided among processes; none: the whole batch",
    )
    heads: PositiveInt = Field(1, description="A3: number of attention heads")
    width: PositiveInt | None = Field(
        None,
        description="A3: total width of queries, keys and values; none: the number of classes",
    )
    layer_norm: bool = Field(True, description="A3: over the classes, before the projections")
    values: Literal["projected", "rows"] = Field(
        "projected", description="what attention mixes: projections, or the softened rows"
    )
    combination: Literal["residual", "mean", "attention"] = Field(
        "residual",
        description="A4: sum of softened logits and attention output, their mean, or the attention "
        "output alone",
    )
    output_init: Literal["zero", "default"] = Field(
        "zero", description="A4: zero starts training from the softened teacher"
    )
    trainable: bool = Field(True, description="false: a control, frozen as initialised")
    objective: Literal["joint", "anchored"] = Field(
        "joint",
        description="joint: the distillation loss reaches the simplifier. anchored: the student "
        "learns from a detached teacher, and the simplifier minimises its KL to the student plus "
        "anchor times the softened teacher's KL to it",
    )
    anchor: NonNegativeFloat = Field(
        1.0,
        description="with objective anchored: weight of the softened teacher's KL to the "
        "simplified one",
    )
    learning_rate_multiplier: PositiveFloat = Field(
        0.00001,
        description="A6: factor on the student's learning rate. It decides when the simplifier "
        "collapses: see docs/assumptions.md",
    )

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"the width {self.width} is not a multiple of the {self.heads} heads")
        return self

    @model_validator(mode="after")
    def _check_group(self) -> Self:
        if self.group is not None and self.axis == "classes":
            raise ValueError(
                f"group: {self.group} is for axis: batch; with axis: classes, images do not attend "
                "to each other: leave group out"
            )
        return self


class Simplifier(Transformation):
    """Transforms teacher logits (B, C) into simplified teacher logits (B, C).

    With h the softened logits and a the attention's output, ``residual`` returns
    T·(h + softmax(Q Kᵀ/√d) V W_o). Because softmax(log_softmax(x)) = softmax(x), with a zero W_o
    any loss of softmax(logits/T) is the same as on the raw logits.
    """

    Settings = SimplifierSettings
    version = 2  # raise it when the values or the initial weights change
    reads_target = False  # only its diagnostics read it
    logits_name = "simplified"
    diagnostics_prefix = ""  # records have always had its diagnostics without a prefix

    def __init__(self, settings: SimplifierSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        num_classes = context.num_classes
        width = settings.width or num_classes
        if width % settings.heads:
            raise UnfitError(
                f"simplifier: the width {width} is not a multiple of the {settings.heads} heads"
            )
        self.norm = nn.LayerNorm(num_classes) if settings.layer_norm else nn.Identity()
        features = num_classes if settings.axis == "batch" else 1
        self.query = nn.Linear(features, width, bias=False)
        self.key = nn.Linear(features, width, bias=False)
        if settings.values == "projected":
            self.value = nn.Linear(features, width, bias=False)
            self.output = nn.Linear(width, features, bias=False)
            if settings.output_init == "zero":
                nn.init.zeros_(self.output.weight)
        self.requires_grad_(settings.trainable)

    def soften(self, teacher_logits: Tensor) -> Tensor:
        """Return h, (B, C): assumption A1."""
        scaled = teacher_logits / self.settings.temperature
        if self.settings.softening == "log_softmax":
            return F.log_softmax(scaled, dim=1)
        if self.settings.softening == "softmax":
            return F.softmax(scaled, dim=1)
        return scaled

    def forward(self, batch: Batch) -> Tensor:
        """Return the simplified teacher logits, (B, C)."""
        return self.simplify(batch.teacher.logits)

    def simplify(self, teacher_logits: Tensor) -> Tensor:
        """Return the simplified logits z' = T·s of raw teacher logits, both (B, C)."""
        softened = self.soften(teacher_logits)
        mixed = self._attend_in_groups(softened)
        if self.settings.combination == "residual":
            mixed = softened + mixed
        elif self.settings.combination == "mean":
            mixed = (softened + mixed) / 2
        return self.settings.temperature * mixed

    def partition_problem(self, part_size: int) -> str | None:
        """Return why a batch cannot be divided into parts of `part_size` images, or ``None``."""
        group = self.settings.group
        if self.settings.axis == "classes" or (group and part_size % group == 0):
            return None
        if group is None:
            problem = "in the simplifier, all images of a batch attend to each other"
        else:
            problem = (
                f"the simplifier's groups of {group} images do not divide a part of {part_size}"
            )
        return f"{problem}: set its `group` to {part_size} or a divisor of it"

    def for_student(self, logits: Tensor) -> Tensor:
        """Return the simplified logits for the student's loss, detached if anchored."""
        return logits.detach() if self.settings.objective == "anchored" else logits

    def own_loss(self, batch: Batch, logits: Tensor) -> Tensor | None:
        """Return the simplifier's separate loss, or ``None`` if it is trained by the student's."""
        if self.settings.objective == "joint":
            return None
        t = self.settings.temperature
        to_student = kl_divergence(logits / t, batch.student.logits.detach() / t)
        to_simplified = kl_divergence(batch.teacher.logits / t, logits / t)
        return to_student + self.settings.anchor * to_simplified

    def diagnostics(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Return the batch means that show a collapse: entropies and KL in nats, top-1 in %."""
        t, raw = self.settings.temperature, batch.teacher.logits
        return {
            "entropy_raw": entropy(raw),
            "entropy_softened": entropy(raw / t),
            "entropy_simplified": entropy(logits / t),
            "top1_raw": top1(raw, batch.main_target),
            "top1_simplified": top1(logits, batch.main_target),
            "kl_softened_simplified": kl_divergence(raw / t, logits / t),
            "kl_simplified_student": kl_divergence(logits / t, batch.student.logits / t),
        }

    def _attend_in_groups(self, softened: Tensor) -> Tensor:
        """Return the attention's output, (B, C). The last group may be smaller."""
        size = self.settings.group or len(softened)
        full = len(softened) // size * size  # images in full groups
        if full in (0, len(softened)):
            return self._attend(softened, min(size, len(softened)))
        rest = softened[full:]
        return torch.cat([self._attend(softened[:full], size), self._attend(rest, len(rest))])

    def _attend(self, softened: Tensor, size: int) -> Tensor:
        """Return the attention's output, (B, C), within groups of `size` images."""
        tokens = self.norm(softened)
        rows = softened
        if self.settings.axis == "classes":  # B sequences of C tokens with one feature
            tokens, rows = tokens.unsqueeze(2), rows.unsqueeze(2)
        else:  # one sequence per group, whose images are tokens with C features
            tokens, rows = tokens.unflatten(0, (-1, size)), rows.unflatten(0, (-1, size))
        query, key = self._split(self.query(tokens)), self._split(self.key(tokens))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        weights = scores.softmax(dim=-1)
        if self.settings.values == "rows":
            mixed = weights.mean(dim=1) @ rows
        else:
            heads = weights @ self._split(self.value(tokens))
            mixed = self.output(heads.transpose(1, 2).flatten(2))
        return mixed.reshape(softened.shape)

    def _split(self, projected: Tensor) -> Tensor:
        """Split (S, L, width) into heads: (S, heads, L, width/heads)."""
        return projected.unflatten(2, (self.settings.heads, -1)).transpose(1, 2)
