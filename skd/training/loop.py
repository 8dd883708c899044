"""The training loop of a run: epochs of steps, each epoch with an evaluation at its end.

All randomness derives from (seed, epoch), and `Training.state` has everything that a step changes.
A run that is killed at any moment and resumed from any checkpoint therefore ends with the same
bits. What differs from step to step is in tensors on the device, so that steps can be recorded and
replayed. Nothing is read back before the end of an epoch.

A batch may be divided among processes, and into parts that a process trains on in turn
(`skd.training.data_parallel`). The gradient stays that of the whole batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from skd.common.errors import SkdError
from skd.data.views import Views
from skd.losses.objective import Objective
from skd.models import FeatureNetwork
from skd.randomness import Draws
from skd.store.records import EpochMetrics
from skd.study.spec import RunSpec
from skd.training.cuda_graph import GraphRecorder, RecordedEvaluation, RecordedSteps
from skd.training.data_parallel import BatchPartition, with_classifier
from skd.training.evaluation import Scores
from skd.training.execution import Execution
from skd.training.metrics import EpochMeans, MetricSums
from skd.training.optimizer import learning_rate, load_optimizer_state, set_learning_rate
from skd.training.resources import DeviceDataset
from skd.training.step import build_step
from skd.training.teacher import FrozenTeacher, has_finite_outputs

ADVICE = "a smaller learning rate or loss weight may help"


class NonFiniteLossError(SkdError, ArithmeticError):
    """A loss became NaN or infinite."""

    repeats = True


class Training:
    """A run on one device: its networks, its optimiser, and how far it is.

    Args:
        spec: the run.
        dataset: its images on the device.
        teacher: its teacher; ``None`` for a run without one.
        execution: how the run is executed.
        partition: how its batches are divided; ``None``: they are not.

    Attributes:
        training_step: networks, optimiser and inputs, and one step with them.
        recorder: attempts to record steps and evaluations as CUDA graphs.
        history: metrics of the finished epochs.
        step: next step of the current epoch, from 0.
        elapsed: seconds spent on the current epoch.

    Raises:
        DivisionError: the batches cannot be divided as the partition requires.
        UnfitError: a loss does not work on these networks.
        KernelsError: the execution's table of kernels does not exist.
    """

    def __init__(
        self,
        spec: RunSpec,
        dataset: DeviceDataset,
        teacher: FrozenTeacher | None,
        execution: Execution,
        partition: BatchPartition | None = None,
    ) -> None:
        self.spec, self.dataset, self.execution = spec, dataset, execution
        self.partition = partition or BatchPartition()
        self.training_step = build_step(spec, dataset, teacher, execution, self.partition)
        is_alone, on_gpu = self.partition.num_parts == 1, dataset.device.type == "cuda"
        self.recorder = GraphRecorder(
            enabled=execution.step == "fast" and is_alone and on_gpu,
            after_failure=lambda: self.optimizer.zero_grad(set_to_none=True),
        )
        self._steps = RecordedSteps(
            self.recorder,
            spec.recipe.batch_size,
            self.training_step.run,
            self.training_step.changed_tensors,
            self._new_draws,
        )
        self._evaluation = RecordedEvaluation(
            self.recorder,
            lambda: dataset.evaluator.logits(
                with_classifier(self.student, self.objective), self.partition.team
            ),
            recordable=dataset.evaluator.on_device,
        )
        self._graph_key: object = None  # of the objective; steps are recorded and compiled for it
        self.history: list[dict[str, Any]] = []
        self.step = 0
        self.elapsed = 0.0

    @property
    def student(self) -> FeatureNetwork:
        """The network that is trained."""
        return self.training_step.student

    @property
    def objective(self) -> Objective:
        """The losses, with their own parameters."""
        return self.training_step.objective

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser of student and objective."""
        return self.training_step.optimizer

    def close(self) -> None:
        """Stop the processes that load images."""
        self.training_step.inputs.close()

    @property
    def views(self) -> Views:
        """The source of the training images."""
        return self.training_step.inputs.views

    @property
    def sums(self) -> MetricSums:
        """Metrics of the current epoch."""
        return self.training_step.sums

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch. The last one is smaller if the recipe keeps it."""
        return self.training_step.inputs.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Number of steps since the start of the run."""
        return self.epochs_done * self.steps_per_epoch + self.step

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as tensors and plain data.

        Every process must call this. The state of the first process is saved.
        """
        return {
            "student": self.student.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "step": self.step,
            "elapsed": self.elapsed,
            "sums": self.sums.gather_state(self.partition.team),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self.student.load_state_dict(state["student"])
        self.objective.load_state_dict(state["objective"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.history = list(state["history"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.sums.load_state(state["sums"], self.partition.team)
        self.training_step.inputs.forget_position()
        self._steps.clear()

    def run_epoch(self, after_step: Callable[[Training], None]) -> EpochMetrics:
        """Train the remaining steps of the current epoch, evaluate, and return the metrics.

        Args:
            after_step: called after each step, when `state` is consistent. It may raise an error
                to stop the training.

        Raises:
            NonFiniteLossError: a loss became NaN or infinite during the epoch.
            CompilerError: as `prepare`.
        """
        started = time.perf_counter() - self.elapsed
        while self.step < self.steps_per_epoch:
            self.advance()
            self.elapsed = time.perf_counter() - started
            after_step(self)
        return self._finish_epoch(started)

    def advance(self) -> None:
        """Train the next step. The device may still be working on it afterwards."""
        self.prepare()
        inputs = self.training_step.inputs
        inputs.load_next()
        self._steps.run(inputs.batch_size(self.step), inputs.epoch, self.step)
        inputs.step_done(self.step)
        self.step += 1

    def prepare(self) -> None:
        """Set inputs, learning rate and losses to the next step, and generate code if needed.

        Code is generated before the first step, if the execution compiles or uses kernels.

        Raises:
            CompilerError: the compiler fails.
        """
        epoch, inputs = self.epochs_done + 1, self.training_step.inputs
        if not inputs.is_at(epoch, self.step):
            set_learning_rate(self.optimizer, learning_rate(self.spec.recipe, epoch))
            inputs.seek(epoch, self.step)
            self.objective.begin_epoch(epoch, self.dataset.device)
            if (graph_key := self.objective.graph_key(epoch)) != self._graph_key:
                self._steps.clear()
                self.training_step.generated_pass, self._graph_key = None, graph_key
        generates_code = self.execution.compiled or self.execution.kernels is not None
        if generates_code and self.training_step.generated_pass is None:
            self.training_step.generate_code(self._new_draws().set_step(epoch, self.step))

    def evaluate(self) -> Tensor:
        """Return the student's logits on the test images, (M, C). The next call overwrites them."""
        return self._evaluation.run()

    def test_logits(self) -> Tensor:
        """Return the logits of the last evaluation, or evaluate if there was none, (M, C)."""
        logits = self._evaluation.logits
        return self.evaluate() if logits is None else logits

    def _new_draws(self) -> Draws:
        return Draws(self.spec.seed, self.dataset.device)

    def _finish_epoch(self, started: float) -> EpochMetrics:
        """Evaluate, add the epoch to the history, and return its metrics."""
        means = EpochMeans.read(self.sums, self.partition.team)
        trained = time.perf_counter() - started
        self._check_losses(means)
        scores = self.dataset.evaluator.scores(self.evaluate())
        self._check_scores(means, scores)
        self.elapsed = time.perf_counter() - started
        epoch = self.epochs_done + 1
        metrics = EpochMetrics(
            epoch=epoch,
            learning_rate=learning_rate(self.spec.recipe, epoch),
            train_losses=means.losses,
            train_top1=means.top1,
            test_loss=scores.loss,
            test_top1=scores.top1,
            test_top5=scores.top5,
            diagnostics=means.diagnostics,
            seconds=self.elapsed,
            images_per_second=means.images / trained,
        )
        self.history.append(metrics.model_dump())
        self.step, self.elapsed = 0, 0.0
        self.sums.reset()
        return metrics

    def _check_losses(self, means: EpochMeans) -> None:
        """Raise NonFiniteLossError if a step of the epoch had a non-finite loss."""
        step = means.finite_steps
        if step < self.steps_per_epoch:
            raise NonFiniteLossError(
                f"the loss was not finite in epoch {self.epochs_done + 1}, step {step + 1} "
                f"(means of the epoch: {means.losses_text()}); {self._remedy(step)}"
            )

    def _check_scores(self, means: EpochMeans, scores: Scores) -> None:
        """Raise NonFiniteLossError if the test loss, a mean loss or a diagnostic is not finite."""
        values = [scores.loss, *means.losses.values(), *means.diagnostics.values()]
        if not all(map(math.isfinite, values)):
            raise NonFiniteLossError(
                f"after epoch {self.epochs_done + 1} the test loss is {scores.loss:.4g}, the mean "
                f"losses are {means.losses} and the diagnostics are {means.diagnostics}; {ADVICE}"
            )

    def _remedy(self, step: int) -> str:
        """Return what to do about a non-finite loss in a step (from 0) of the epoch."""
        inputs, teacher = self.training_step.inputs, self.training_step.teacher
        if teacher is not None:
            inputs.seek(self.epochs_done + 1, step)
            for part in self.partition.own_parts(inputs.batch_size(step)):
                inputs.load_next()
                if not has_finite_outputs(teacher, inputs.batch(part)):
                    return "the teacher's outputs are not finite there: use another teacher"
        return ADVICE
