"""The training loop. It knows loss terms by their contract and never names a method.

Everything random comes from (seed, epoch), and all that a step leaves is in `Training.state`:
killed anywhere and started again from any checkpoint, a run ends with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skd.data.images import Images
from skd.data.views import ViewMaker, epoch_order
from skd.errors import SkdError
from skd.models import build_model
from skd.models.outputs import Outputs
from skd.objective import Losses, Objective
from skd.randomness import Draws, seeded
from skd.records import Epoch
from skd.spec import RunSpec
from skd.terms import Batch, TermContext
from skd.training.evaluation import Evaluator
from skd.training.schedule import learning_rate, make_optimizer, set_learning_rate

DRY_BATCH = 2


class NonFiniteLossError(SkdError, ArithmeticError):
    """A loss became NaN or infinite."""

    repeats = True


class Training:
    """One run's networks, optimiser and progress, on one device."""

    def __init__(
        self, spec: RunSpec, images: Images, teacher: nn.Module | None, device: torch.device
    ) -> None:
        self.spec, self.teacher = spec, teacher
        self.views = ViewMaker(images, device)
        self.evaluator = Evaluator(images, self.views)
        with seeded(spec.seed, "weights"):
            self.student = build_model(spec.network, images.num_classes).to(device)
        example = self.views.normalise(images.train_images[:DRY_BATCH].to(device))
        context = TermContext(
            num_classes=images.num_classes,
            train_labels=images.train_labels,
            seed=spec.seed,
            student=_dry_pass(self.student, example),
            teacher=None if teacher is None else _dry_pass(teacher, example),
        )
        self.objective = Objective(spec.method, context).to(device)
        self.draws = Draws(spec.seed, device)
        self.optimizer = make_optimizer(spec.recipe, self.student, self.objective)
        self.history: list[dict[str, Any]] = []
        self.step = 0  # within the epoch under way
        self.elapsed = 0.0  # seconds of it
        self.sums: dict[str, Tensor] = {}
        self._logits: Tensor | None = None  # of the last evaluation

    @property
    def epochs_done(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one may be smaller and is kept."""
        return math.ceil(len(self.views.labels) / self.spec.recipe.batch_size)

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs, as tensors and plain data."""
        return {
            "student": self.student.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "step": self.step,
            "elapsed": self.elapsed,
            "sums": self.sums,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `state` returned."""
        self.student.load_state_dict(state["student"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = list(state["history"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.sums = dict(state["sums"])

    def test_logits(self) -> Tensor:
        """Return the student's logits on the test images after the last epoch, (M, C)."""
        return self.evaluator.logits(self.student) if self._logits is None else self._logits

    def run_epoch(self, after_step: Callable[[Training], None]) -> Epoch:
        """Finish the epoch under way: train the steps that are left, evaluate, read the metrics.

        Args:
            after_step: called after each step, when `state` is consistent; may raise to leave.

        Raises:
            NonFiniteLossError: a loss became NaN or infinite during the epoch.
        """
        epoch, recipe = self.epochs_done + 1, self.spec.recipe
        device = self.views.labels.device
        set_learning_rate(self.optimizer, learning_rate(recipe, epoch))
        order = epoch_order(self.spec.seed, epoch, len(self.views.labels)).to(device)
        views = self.views.draw(self.spec.seed, epoch)
        begun = time.perf_counter() - self.elapsed
        for indices in order.split(recipe.batch_size)[self.step :]:
            losses, student = self._train_step(self.views.batch(views, indices), indices, epoch)
            self._count(losses, student, indices)
            self.step += 1
            self.elapsed = time.perf_counter() - begun
            after_step(self)
        return self._finish_epoch(epoch, begun)

    def _train_step(self, images: Tensor, indices: Tensor, epoch: int) -> tuple[Losses, Outputs]:
        teacher = None
        if self.teacher is not None:
            with torch.no_grad():
                teacher = self.teacher.forward_features(images)
        student = self.student.forward_features(images)
        draws = self.draws.go_to(epoch, self.step)
        batch = Batch(student, teacher, self.views.labels[indices], indices, epoch, draws)
        losses = self.objective(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()
        return losses, student

    @torch.no_grad()
    def _count(self, losses: Losses, student: Outputs, indices: Tensor) -> None:
        """Add a step's metrics on the device; they are read once an epoch."""
        size = len(indices)
        hits = (student.logits.argmax(dim=1) == self.views.labels[indices]).sum()
        steps = self.sums.get("finite_steps", torch.zeros_like(hits))
        finite = torch.isfinite(losses.total) & (steps == self.step)
        self.sums["finite_steps"] = steps + finite
        self._add("images", torch.full_like(hits, size))
        self._add("hits", hits)
        self._add("loss/total", losses.total * size)
        for name, value in losses.parts.items():
            self._add(f"loss/{name}", value * size)
        for name, value in losses.diagnostics.items():
            self._add(f"diagnostic/{name}", value * size)

    def _add(self, name: str, value: Tensor) -> None:
        value = value.double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def _finish_epoch(self, epoch: int, begun: float) -> Epoch:
        sums = {name: value.item() for name, value in self.sums.items()}
        trained = time.perf_counter() - begun
        means = {name: value / sums["images"] for name, value in sums.items()}
        losses, diagnostics = _under("loss/", means), _under("diagnostic/", means)
        if sums["finite_steps"] < self.steps_per_epoch:
            values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            raise NonFiniteLossError(
                f"the loss was not finite in epoch {epoch}, step {int(sums['finite_steps']) + 1} "
                f"(the epoch's means: {values}); a smaller learning rate or weight may help"
            )
        self._logits = self.evaluator.logits(self.student)
        scores = self.evaluator.scores(self._logits)
        if not all(map(math.isfinite, [scores.loss, *losses.values(), *diagnostics.values()])):
            raise NonFiniteLossError(
                f"after epoch {epoch} the test loss is {scores.loss:.4g} and the diagnostics "
                f"{diagnostics}; a smaller learning rate or weight may help"
            )
        self.elapsed = time.perf_counter() - begun
        row = Epoch(
            epoch=epoch,
            learning_rate=learning_rate(self.spec.recipe, epoch),
            train_losses=losses,
            train_top1=100 * means["hits"],
            test_loss=scores.loss,
            test_top1=scores.top1,
            test_top5=scores.top5,
            diagnostics=diagnostics,
            seconds=self.elapsed,
            images_per_second=sums["images"] / trained,
        )
        self.history.append(row.model_dump())
        self.step, self.elapsed, self.sums = 0, 0.0, {}
        return row


def _under(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


@torch.no_grad()
def _dry_pass(network: nn.Module, images: Tensor) -> Outputs:
    """Return a network's outputs for their shapes, its state and mode untouched."""
    training = network.training
    network.eval()
    outputs = network.forward_features(images)
    network.train(training)
    return outputs
