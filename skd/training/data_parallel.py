"""Division of a batch: among processes, and into parts that a process trains on in turn.

The batch, the groups of BatchNorm and the gradient are those of the recipe, whatever the number of
processes and parts. One, two or eight GPUs train the same run, up to rounding.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skd.common.errors import SkdError
from skd.losses.objective import Losses, Objective
from skd.losses.term import Batch, Term
from skd.models.network import FeatureNetwork, Outputs
from skd.study.spec import Recipe
from skd.training.distributed import SingleProcess, Team


class DivisionError(SkdError, ValueError):
    """The batches of a run cannot be divided as requested. Says what is possible."""

    repeats = True


@dataclass(frozen=True)
class BatchPartition:
    """How a batch is divided.

    Attributes:
        team: the processes. Each one trains on an equal share of the images.
        accumulate: number of parts of that share. They go through the networks one after the
            other, which saves memory.
    """

    team: Team = field(default_factory=SingleProcess)
    accumulate: int = 1

    @property
    def num_parts(self) -> int:
        """Parts of a batch, over all processes."""
        return self.team.world_size * self.accumulate

    def own_parts(self, size: int) -> list[range]:
        """Return the places of this process's parts in a batch of a size."""
        each = size // self.num_parts
        first = self.team.rank * self.accumulate
        return [range(n * each, (n + 1) * each) for n in range(first, first + self.accumulate)]

    def check(self, recipe: Recipe, objective: Objective, images: int) -> None:
        """Refuse a partition that would not train the same run.

        Args:
            recipe: of the run.
            objective: its losses.
            images: number of training images.

        Raises:
            DivisionError: an epoch has no whole batch, or the parts would not add up to a batch.
        """
        size = recipe.batch_size
        if recipe.last_batch == "drop" and images < size:
            raise DivisionError(
                f"{images} training images make no batch of {size}: choose a smaller batch_size, "
                "or last_batch: keep"
            )
        if self.num_parts == 1:
            return
        reason = recipe.partition_problem(self.num_parts) or objective.partition_problem(
            size // self.num_parts
        )
        if reason:
            processes = "process" if self.team.world_size == 1 else "processes"
            parts = "part" if self.accumulate == 1 else "parts"
            raise DivisionError(
                f"a batch cannot be divided among {self.team.world_size} {processes} with "
                f"{self.accumulate} {parts} each: {reason}"
            )

    def gradient_sync(self, networks: nn.Module, last: bool) -> contextlib.AbstractContextManager:
        """Return the context for a part: the last part averages gradients over the processes."""
        if last or not isinstance(networks, DistributedDataParallel):
            return contextlib.nullcontext()
        return networks.no_sync()


class StudentWithObjective(nn.Module):
    """Student and objective as one module, which DistributedDataParallel wraps."""

    def __init__(self, student: FeatureNetwork, objective: Objective) -> None:
        super().__init__()
        self.student, self.objective = student, objective

    def forward(
        self,
        images: Tensor,
        make_batch: Callable[[Outputs, Outputs | None], Batch],
        strong: Tensor | None = None,
        forward_pass: Callable[[Tensor], Outputs] | None = None,
    ) -> tuple[Outputs, Losses]:
        """Return the student's outputs on images, with the logits that count, and the losses.

        Args:
            images: (B, 3, H, W).
            make_batch: returns the batch of the losses for the student's outputs on both views.
            strong: second, strong views of the images, or ``None``.
            forward_pass: replaces the student's forward pass; ``None``: the student's own.
        """
        forward_pass = forward_pass or self.student.forward_features
        # Two passes, as is usual: BatchNorm normalises each view by its own statistics.
        student = forward_pass(images)
        on_strong = None if strong is None else forward_pass(strong)
        losses = self.objective(make_batch(student, on_strong))
        if losses.logits is not student.logits:  # a term replaces the student's classifier
            # DistributedDataParallel waits for a gradient of every parameter that its outputs
            # depend on, and the student's last layers get none.
            student = replace(student.detach(), logits=losses.logits)
        return student, losses


class _WithClassifier(nn.Module):
    """A student with the classifier of the objective instead of its own."""

    def __init__(self, student: FeatureNetwork, classifier: Term) -> None:
        super().__init__()
        self.student, self.classifier = student, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images, (B, C)."""
        return self.classifier.classify(self.student.forward_features(images)).logits


def with_classifier(student: FeatureNetwork, objective: Objective) -> nn.Module:
    """Return what is evaluated: the student, or the student with a term's classifier."""
    classifier = objective.classifier()
    return student if classifier is None else _WithClassifier(student, classifier)


def wrap_in_ddp(networks: StudentWithObjective, team: Team) -> nn.Module:
    """Return the networks in DistributedDataParallel, or as they are if there is one process."""
    if team.world_size == 1:
        return networks
    # Buffers change alike in all processes. Before torch 2.13 the option has its older name.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # Without the search for unused parameters, the order in which gradients are added changes after
    # the first step, and a resumed run of three processes or more ends with other bits.
    return DistributedDataParallel(networks, find_unused_parameters=True, **{option: False})
