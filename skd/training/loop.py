"""The training loop. It knows loss terms by their contract and never names a method.

Everything random comes from (seed, epoch), and all that a step leaves is in `Training.state`:
killed anywhere and started again from any checkpoint, a run ends with the same bits. What differs
from step to step lies in tensors on the device, so that a step can be recorded and replayed, and
nothing is read back before the epoch's end.

A batch may be divided among processes, and further into parts that go through the networks one
after the other (`skd.training.data_parallel`): the batch and its gradient are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skd.common.errors import SkdError
from skd.kernels.layers import use_kernels
from skd.kernels.tables import load_table
from skd.losses.objective import Losses, Objective
from skd.losses.term import Batch, TermContext
from skd.models import build_model
from skd.models.network import Outputs, dry_pass
from skd.randomness import Draws, seeded
from skd.store.records import EpochMetrics
from skd.study.spec import RunSpec
from skd.training.batch_norm import (
    count_batches,
    update_running_stats,
    use_counted_batch_norms,
    use_grouped_batch_norms,
)
from skd.training.compiling import (
    CompilerError,
    ForwardPass,
    compile_network,
    outputs_with_gradient,
)
from skd.training.cuda_graph import (
    CAPTURE_LOCK,
    GraphRecorder,
    RecordedStep,
    record_graph,
    run_and_restore,
)
from skd.training.data_parallel import BatchPartition, StudentWithObjective, wrap_in_ddp
from skd.training.epoch_inputs import EpochInputs, InputBatch
from skd.training.execution import Execution
from skd.training.metrics import FINITE_STEPS, MetricSums, select_prefix
from skd.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from skd.training.resources import DeviceDataset
from skd.training.teacher import FrozenTeacher, has_finite_outputs

DRY_BATCH = 2


class NonFiniteLossError(SkdError, ArithmeticError):
    """A loss became NaN or infinite."""

    repeats = True


class Training:
    """One run's networks, optimiser and progress, on one device.

    Raises:
        DivisionError: its batches cannot be divided so.
        UnfitError: a loss cannot work on these networks.
        KernelsError: the table of kernels that its execution names is not there.
    """

    def __init__(
        self,
        spec: RunSpec,
        dataset: DeviceDataset,
        teacher: FrozenTeacher | None,
        execution: Execution,
        partition: BatchPartition | None = None,
    ) -> None:
        self.spec, self.dataset, self.teacher = spec, dataset, teacher
        self.execution, self.device = execution, dataset.device
        self.division = partition or BatchPartition()
        self.views, images = dataset.views(), dataset.images
        with seeded(spec.seed, "weights"):
            self.student = build_model(spec.network, images.num_classes)
        self.student.to(self.device, memory_format=execution.memory_format)
        first = torch.arange(DRY_BATCH, device=self.device)
        example = self.views.batch(first, torch.zeros_like(first))
        context = TermContext(
            num_classes=images.num_classes,
            train_labels=images.train_labels,
            seed=spec.seed,
            student=dry_pass(self.student, example),
            teacher=teacher and teacher.outputs(example, first, torch.zeros_like(first)),
            group=spec.recipe.bn_batch,
        )
        self.objective = Objective(spec.method, context)
        self.objective.to(self.device, memory_format=execution.memory_format)
        self.division.check(spec.recipe, self.objective, len(self.views.labels))
        both, group = nn.ModuleList([self.student, self.objective]), spec.recipe.bn_batch
        if execution.kernels:
            use_kernels(both, load_table(execution.kernels))
        fast = execution.step != "plain"
        self._grouped = use_grouped_batch_norms(both, group) if group else []
        self._counted = use_counted_batch_norms(both) if fast and not group else []
        self._networks = wrap_in_ddp(
            StudentWithObjective(self.student, self.objective), self.division.team
        )
        self.draws = Draws(spec.seed, self.device)
        self.optimizer = make_optimizer(spec.recipe, self.student, self.objective, fused=fast)
        self.history: list[dict[str, Any]] = []
        self.step = 0  # within the epoch under way
        self.elapsed = 0.0  # seconds of it
        self.sums = MetricSums()
        self._inputs = EpochInputs(self.views, spec.recipe, self.division)
        self._epoch = 0  # that the inputs are of
        self._begun: tuple[int, int] | None = None  # epoch and step that the inputs are at
        undivided, on_gpu = self.division.count == 1, self.device.type == "cuda"
        self.recordings = GraphRecorder(
            enabled=execution.step == "fast" and undivided and on_gpu,
            after_failure=lambda: self.optimizer.zero_grad(set_to_none=True),
        )
        self._recorded: dict[int, RecordedStep | None] = {}  # by the size of the batch
        self._passes: ForwardPass | None = (
            None  # the student's with generated code, on whole batches
        )
        self._phase: object = None  # of the objective, in which steps were recorded and compiled
        self._replay_test: Callable[[], None] | None = None
        self._logits: Tensor | None = None  # of the last evaluation

    @property
    def recording(self) -> str:
        """What was recorded, and why the rest was not."""
        return str(self.recordings)

    @property
    def epochs_done(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last one may be smaller, where it is kept."""
        return self._inputs.steps

    @property
    def images_per_epoch(self) -> int:
        """Training images that an epoch sees."""
        return min(len(self.views.labels), self.steps_per_epoch * self.spec.recipe.batch_size)

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs, as tensors and plain data.

        Every process asks for it; the first one's is the run's.
        """
        return {
            "student": self.student.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "step": self.step,
            "elapsed": self.elapsed,
            "sums": self.sums.kept(self.division.team),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `state` returned."""
        self.student.load_state_dict(state["student"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = list(state["history"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.sums.restore(state["sums"], self.division.team)
        self._begun = None
        self._recorded.clear()

    def test_logits(self) -> Tensor:
        """Return the student's logits on the test images after the last epoch, (M, C)."""
        return self.evaluate() if self._logits is None else self._logits

    def run_epoch(self, after_step: Callable[[Training], None]) -> EpochMetrics:
        """Finish the epoch under way: train the steps that are left, evaluate, read the metrics.

        Args:
            after_step: called after each step, when `state` is consistent; may raise to leave.

        Raises:
            NonFiniteLossError: a loss became NaN or infinite during the epoch.
            CompilerError: as `prepare`.
        """
        begun = time.perf_counter() - self.elapsed
        while self.step < self.steps_per_epoch:
            self.advance()
            self.elapsed = time.perf_counter() - begun
            after_step(self)
        return self._finish_epoch(self.epochs_done + 1, begun)

    def advance(self) -> None:
        """Train the next step of the epoch under way, whether the device is done with it or not."""
        self.prepare()
        self.views.load_next_batch()
        size = self._inputs.size(self.step)
        recorded = self._recording_of(size)
        draws = self.draws if recorded is None else recorded.draws
        draws.set_step(self._epoch, self.step)
        if recorded is None:
            self._train_step(size, draws)
        else:
            recorded.replay()
        self.step += 1
        self._begun = self._epoch, self.step

    def prepare(self) -> None:
        """Set everything to the next step of the epoch under way, if it is not.

        Before the first step of all, code is generated where the execution has any.

        Raises:
            CompilerError: that fails.
        """
        if self._begun != (self.epochs_done + 1, self.step):
            self._begin_epoch(self.epochs_done + 1)
            self._begun = self._epoch, self.step

    def _new_draws(self) -> Draws:
        return Draws(self.spec.seed, self.device).set_step(self._epoch, self.step)

    def _begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        set_learning_rate(self.optimizer, learning_rate(self.spec.recipe, epoch))
        self._inputs.begin(self.spec.seed, epoch, self.step)
        self.objective.begin_epoch(epoch, self.device)
        if (phase := self.objective.graph_key(epoch)) != self._phase:
            self._recorded.clear()
            self._passes, self._phase = None, phase
        if (self.execution.compiled or self.execution.kernels) and self._passes is None:
            self._generate()

    def _recording_of(self, size: int) -> RecordedStep | None:
        """Return the recorded step of a batch size, which is good for all epochs of the phase."""
        if size not in self._recorded:
            name = "step" if size == self.spec.recipe.batch_size else "last batch"
            self._recorded[size] = self.recordings.make(name, lambda: self._record(size))
        return self._recorded[size]

    def _record(self, size: int) -> RecordedStep:
        draws = self._new_draws()
        replay = record_graph(
            lambda: self._train_step(size, draws), self._moving, lambda: draws.generators
        )
        return RecordedStep(replay, draws)

    def _generate(self) -> None:
        """Set the passes on whole batches; their code is generated by a step that is put back.

        Raises:
            CompilerError: that fails.
        """
        size, draws = self.spec.recipe.batch_size, self._new_draws()

        def step() -> None:
            self._passes = self.student.forward_features
            if self.execution.compiled:
                inputs = self._inputs.of(range(size))
                reached = outputs_with_gradient(
                    lambda outputs: self._losses(inputs, 0, draws, lambda _: outputs)[1].total,
                    self._losses(inputs, 0, draws)[0],
                )
                self._passes = compile_network(self.student, reached)
            self._train_step(size, draws)

        with CAPTURE_LOCK:
            try:
                run_and_restore(step, self._moving)
            except Exception as error:  # whatever a compiler may raise
                self._passes = None
                raise CompilerError.of(error) from error
        self.optimizer.zero_grad(set_to_none=True)

    def _moving(self) -> dict[str, Tensor]:
        """Return all tensors that a step moves, by name."""
        momenta = {
            f"momentum {place}": values["momentum_buffer"]
            for place, values in enumerate(self.optimizer.state.values())
            if values.get("momentum_buffer") is not None
        }
        parts = {"student": self.student, "objective": self.objective}
        weights = {
            f"{part} {name}": tensor
            for part, module in parts.items()
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        }
        sums = {f"sum {name}": value for name, value in self.sums.items()}
        return {**weights, **momenta, **sums, "cursor": self._inputs.cursor}

    def _train_step(self, size: int, draws: Draws) -> None:
        """Train one step on a batch of a size: work for the device alone, nothing is read back."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.division.parts(size)
        finite = []
        for number, part in enumerate(parts):
            if number:
                self.views.load_next_batch()
            with self.division.gradient_sync(self._networks, last=part is parts[-1]):
                finite.append(self._add_gradient(part, len(parts), draws))
        self.optimizer.step()
        self.objective.after_step(self.division.team)
        if self._grouped:
            update_running_stats(self._grouped, self.division.team)
        count_batches(self._counted)
        self.sums.count_finite_step(finite, self._inputs.cursor)
        self._inputs.cursor += 1

    def _add_gradient(self, part: range, parts: int, draws: Draws) -> Tensor:
        """Add one part's share of the batch's gradient; return whether its loss is finite."""
        whole = len(part) == self.spec.recipe.batch_size
        inputs = self._inputs.of(part)
        passes = self._passes if whole else None
        student, losses = self._losses(inputs, part.start, draws, passes)
        # Exactly itself where the batch is whole.
        (losses.total / parts).backward()
        self.sums.update(losses, student, inputs.target)
        return torch.isfinite(losses.total.detach())

    def _losses(
        self, inputs: InputBatch, first: int, draws: Draws, forward: ForwardPass | None = None
    ) -> tuple[Outputs, Losses]:
        """Return the student's outputs on a part of the batch, and its losses.

        Args:
            inputs: the part.
            first: place of its first image in the batch.
            draws: what the losses may draw from.
            forward: the student's forward pass in another form; none: as it is.
        """
        images = inputs.images
        if self.execution.memory_format == torch.contiguous_format:
            images = images.contiguous()
        half = self.execution.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            teacher = self.teacher and self.teacher.outputs(images, inputs.indices, inputs.numbers)
            return self._networks(
                images,
                lambda student: Batch(
                    student,
                    teacher,
                    inputs.target,
                    inputs.indices,
                    self._epoch,
                    draws,
                    peers=self.division.team,
                    first=first,
                ),
                forward,
            )

    def evaluate(self) -> Tensor:
        """Return the student's logits on the test images, (M, C): overwritten by the next ones."""

        def evaluate() -> None:
            self._logits = self.dataset.tests.logits(self.student, self.division.team)

        if self._replay_test is None:
            recorded = None
            if self.dataset.tests.on_device:
                recorded = self.recordings.make("evaluation", lambda: record_graph(evaluate, dict))
            self._replay_test = recorded or evaluate
        self._replay_test()
        return self._logits

    def _cause(self, step: int) -> str:
        """Return what the loss of a step (from 0) is not finite for: its teacher, where it is."""
        if self.teacher is not None:
            self._inputs.begin(self.spec.seed, self._epoch, step)
            for part in self.division.parts(self._inputs.size(step)):
                self.views.load_next_batch()
                if not has_finite_outputs(self.teacher, self._inputs.of(part)):
                    return "the teacher's outputs are not finite there: take another teacher"
        return "a smaller learning rate or weight may help"

    def _finish_epoch(self, epoch: int, begun: float) -> EpochMetrics:
        totals = self.sums.totals(self.division.team)
        sums = {name: value.item() for name, value in totals.items()}
        trained = time.perf_counter() - begun
        means = {name: value / sums["images"] for name, value in sums.items()}
        losses, diagnostics = select_prefix("loss/", means), select_prefix("diagnostic/", means)
        if sums[FINITE_STEPS] < self.steps_per_epoch:
            values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            step = int(sums[FINITE_STEPS])
            raise NonFiniteLossError(
                f"the loss was not finite in epoch {epoch}, step {step + 1} "
                f"(the epoch's means: {values}); {self._cause(step)}"
            )
        scores = self.dataset.tests.scores(self.evaluate())
        if not all(map(math.isfinite, [scores.loss, *losses.values(), *diagnostics.values()])):
            raise NonFiniteLossError(
                f"after epoch {epoch} the test loss is {scores.loss:.4g} and the diagnostics "
                f"{diagnostics}; a smaller learning rate or weight may help"
            )
        self.elapsed = time.perf_counter() - begun
        row = EpochMetrics(
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
        self.step, self.elapsed = 0, 0.0
        self.sums.reset()
        return row
