"""How a step's batch is divided: among processes, and into parts that a process sees in turn.

The batch, the groups of BatchNorm and the gradient stay those of the recipe, whatever the number of
processes and parts: one, two or eight GPUs train the same run, to rounding.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skd.common.errors import SkdError
from skd.losses.objective import Losses, Objective
from skd.losses.term import Batch
from skd.models.network import FeatureNetwork, Outputs
from skd.study.spec import Recipe
from skd.training.distributed import SingleProcess, Team


class DivisionError(SkdError, ValueError):
    """A run's batches cannot be divided so. Says what can be done."""

    repeats = True


@dataclass(frozen=True)
class BatchPartition:
    """Who sees what of a batch.

    Attributes:
        team: the processes, each of which has as many of its images.
        accumulate: parts that a process's images go through the networks in, to save memory.
    """

    team: Team = field(default_factory=SingleProcess)
    accumulate: int = 1

    @property
    def count(self) -> int:
        """Parts of a batch, over all processes."""
        return self.team.count * self.accumulate

    def parts(self, size: int) -> list[range]:
        """Return the places in a batch of so many images that this process sees, part by part."""
        each = size // self.count
        first = self.team.rank * self.accumulate
        return [range(n * each, (n + 1) * each) for n in range(first, first + self.accumulate)]

    def check(self, recipe: Recipe, objective: Objective, images: int) -> None:
        """Refuse what could not be the same run.

        Raises:
            DivisionError: there is no full batch, or its parts would not add up to it.
        """
        size = recipe.batch_size
        if recipe.last_batch == "drop" and images < size:
            raise DivisionError(
                f"{images} training images make no batch of {size}: a smaller batch_size, or "
                "last_batch: keep"
            )
        if self.count == 1:
            return
        reason = recipe.partition_problem(self.count) or objective.partition_problem(
            size // self.count
        )
        if reason:
            processes = f"a batch for {self.team.count} processes"
            raise DivisionError(f"{processes}, in {self.accumulate} parts each: {reason}")

    def gradient_sync(self, networks: nn.Module, last: bool) -> contextlib.AbstractContextManager:
        """Return the context of a part's passes: gradients are exchanged with the last part's."""
        if last or not isinstance(networks, DistributedDataParallel):
            return contextlib.nullcontext()
        return networks.no_sync()


class StudentWithObjective(nn.Module):
    """The student and the objective as one module: what DistributedDataParallel wraps."""

    def __init__(self, student: FeatureNetwork, objective: Objective) -> None:
        super().__init__()
        self.student, self.objective = student, objective

    def forward(
        self,
        images: Tensor,
        batch_of: Callable[[Outputs], Batch],
        passes: Callable[[Tensor], Outputs] | None = None,
    ) -> tuple[Outputs, Losses]:
        """Return the student's outputs on images, and the losses of the batch made of them.

        Args:
            images: (B, 3, H, W).
            batch_of: makes the losses' batch of the student's outputs.
            passes: the student's forward pass in another form; none: as it is.
        """
        student = (passes or self.student.forward_features)(images)
        return student, self.objective(batch_of(student))


def wrap_in_ddp(networks: StudentWithObjective, team: Team) -> nn.Module:
    """Return what averages the gradients over the processes, or the networks themselves."""
    if team.count == 1:
        return networks
    # Buffers move alike in all processes; before torch 2.13 the option has its older name.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # To look for unused parameters keeps the order in which gradients are added up: else it changes
    # after the first step, and a resumed run of three processes or more ends with other bits.
    return DistributedDataParallel(networks, find_unused_parameters=True, **{option: False})
