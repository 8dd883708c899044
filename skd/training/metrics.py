"""Metrics of an epoch, summed on the device and read once at the end of the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skd.losses.objective import Losses
from skd.models.network import Outputs
from skd.training.distributed import Team

FINITE_STEPS = "finite_steps"  # number of steps before the first one with a non-finite loss


class MetricSums(dict[str, Tensor]):
    """Sums over the images that this process has seen in the epoch, by name."""

    @torch.no_grad()
    def update(self, losses: Losses, student: Outputs, target: Tensor) -> None:
        """Add the losses and the hits of a batch, or of a part of it."""
        size = len(target)
        hits = (student.logits.argmax(dim=1) == target).sum()
        self._add("images", torch.full_like(hits, size))
        self._add("hits", hits)
        self._add("loss/total", losses.total * size)
        for name, value in losses.by_term.items():
            self._add(f"loss/{name}", value * size)
        for name, value in losses.diagnostics.items():
            self._add(f"diagnostic/{name}", value * size)

    def count_finite_step(self, finite: Sequence[Tensor], cursor: Tensor) -> None:
        """Count a step if its loss and the losses of all earlier steps are finite.

        Args:
            finite: for each part of the batch, whether its loss is finite.
            cursor: place of the step in the epoch, from 0.
        """
        steps = self.setdefault(FINITE_STEPS, torch.zeros_like(cursor))
        steps += torch.stack(list(finite)).all() & (steps == cursor)

    def totals(self, team: Team) -> dict[str, Tensor]:
        """Return the sums over all processes."""
        if team.world_size == 1 or not self:
            return dict(self)
        totals = {name: value.clone() for name, value in self.items() if name != FINITE_STEPS}
        team.all_reduce_sum(list(totals.values()))
        return {**totals, FINITE_STEPS: team.all_gather(self[FINITE_STEPS].view(1)).min()}

    def gather_state(self, team: Team) -> dict[str, Tensor]:
        """Return the sums of every process, one value for each: their order decides rounding."""
        if team.world_size == 1:
            return dict(self)
        return {name: team.all_gather(value.view(1)) for name, value in self.items()}

    def load_state(self, state: dict[str, Tensor], team: Team) -> None:
        """Load what `gather_state` returned, with the same number of processes or another one."""
        self.clear()
        for name, values in state.items():
            rows = values.view(-1)
            if len(rows) == team.world_size:
                self[name] = rows[team.rank].clone()
            elif name == FINITE_STEPS:
                self[name] = rows.min()
            else:
                self[name] = torch.zeros_like(rows[0]) if team.rank else rows.sum()

    def reset(self) -> None:
        """Set all sums to zero."""
        for value in self.values():
            value.zero_()

    def _add(self, name: str, value: Tensor) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=value.device)
        self.setdefault(name, zero).add_(value)


@dataclass(frozen=True)
class EpochMeans:
    """Metrics of an epoch: means over its images, as plain numbers.

    Attributes:
        images: training images of all processes.
        top1: training accuracy, in percent.
        losses: means of the losses, by name; "total" is one of them.
        diagnostics: means of what the objective measures beside its losses, by name.
        finite_steps: number of steps before the first one with a non-finite loss.
    """

    images: float
    top1: float
    losses: dict[str, float]
    diagnostics: dict[str, float]
    finite_steps: int

    @classmethod
    def read(cls, sums: MetricSums, team: Team) -> EpochMeans:
        """Return the means of an epoch. This waits for the device and for all processes."""
        totals = {name: value.item() for name, value in sums.totals(team).items()}
        means = {name: value / totals["images"] for name, value in totals.items()}
        return cls(
            images=totals["images"],
            top1=100 * means["hits"],
            losses=select_prefix("loss/", means),
            diagnostics=select_prefix("diagnostic/", means),
            finite_steps=int(totals[FINITE_STEPS]),
        )

    def losses_text(self) -> str:
        """Return names and means of the losses, for a message."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())


def select_prefix(prefix: str, values: dict[str, float]) -> dict[str, float]:
    """Return the values whose names start with a prefix, by their names without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
