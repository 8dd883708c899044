"""An epoch's metrics, summed over its images on the device and read once, at its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skd.losses.objective import Losses
from skd.models.network import Outputs
from skd.training.distributed import Team

FINITE_STEPS = "finite_steps"  # steps at the epoch's start, before the first one that was not


class MetricSums(dict[str, Tensor]):
    """Sums by name; a process has those of the images that it saw."""

    @torch.no_grad()
    def update(self, losses: Losses, student: Outputs, target: Tensor) -> None:
        """Add what a pass over some images showed."""
        size = len(target)
        hits = (student.logits.argmax(dim=1) == target).sum()
        self._add("images", torch.full_like(hits, size))
        self._add("hits", hits)
        self._add("loss/total", losses.total * size)
        for name, value in losses.parts.items():
            self._add(f"loss/{name}", value * size)
        for name, value in losses.diagnostics.items():
            self._add(f"diagnostic/{name}", value * size)

    def count_finite_step(self, finite: Sequence[Tensor], cursor: Tensor) -> None:
        """Count a step if all its losses are finite, and those of all steps before it were.

        Args:
            finite: of each part of the batch, whether its loss is.
            cursor: the step's place in the epoch, from 0.
        """
        steps = self.setdefault(FINITE_STEPS, torch.zeros_like(cursor))
        steps += torch.stack(list(finite)).all() & (steps == cursor)

    def _add(self, name: str, value: Tensor) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=value.device)
        self.setdefault(name, zero).add_(value)

    def totals(self, team: Team) -> dict[str, Tensor]:
        """Return the sums over all processes."""
        if team.count == 1 or not self:
            return dict(self)
        totals = {name: value.clone() for name, value in self.items() if name != FINITE_STEPS}
        team.add(list(totals.values()))
        return {**totals, FINITE_STEPS: team.all_gather(self[FINITE_STEPS].view(1)).min()}

    def kept(self, team: Team) -> dict[str, Tensor]:
        """Return the sums of each process, one by one: their order decides the last bits."""
        if team.count == 1:
            return dict(self)
        return {name: team.all_gather(value.view(1)) for name, value in self.items()}

    def restore(self, kept: dict[str, Tensor], team: Team) -> None:
        """Go on from what was kept, by as many processes or by others."""
        self.clear()
        for name, values in kept.items():
            rows = values.view(-1)
            if len(rows) == team.count:
                self[name] = rows[team.rank].clone()
            elif name == FINITE_STEPS:
                self[name] = rows.min()
            else:
                self[name] = torch.zeros_like(rows[0]) if team.rank else rows.sum()

    def reset(self) -> None:
        """Begin an epoch."""
        for value in self.values():
            value.zero_()


def select_prefix(prefix: str, values: dict[str, float]) -> dict[str, float]:
    """Return the values whose names have a prefix, by their names without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
