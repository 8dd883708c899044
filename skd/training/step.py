"""The training step: forward passes, gradients, one step of the optimiser.

It knows losses by the contract of terms and names no method. It queues work for the device and
reads nothing back, so that it can be recorded as a CUDA graph and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skd.kernels.layers import use_kernels
from skd.kernels.tables import load_table
from skd.losses.methods import needs_strong_view
from skd.losses.objective import Losses, Objective
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import (
    Batch,
    NetworkReference,
    Partner,
    StrongView,
    TermContext,
    main_target,
)
from skd.models import FeatureNetwork, build_model
from skd.models.network import Outputs, dry_pass
from skd.models.step_dropout import (
    StepDropout,
    draw_step_seeds,
    set_first_image,
    step_dropouts,
)
from skd.randomness import Draws, seeded
from skd.study.spec import RunSpec
from skd.training.batch_norm import BatchNorms
from skd.training.compiling import (
    CompilerError,
    ForwardPass,
    compile_network,
    outputs_with_gradient,
)
from skd.training.cuda_graph import CAPTURE_LOCK, run_and_restore
from skd.training.data_parallel import BatchPartition, StudentWithObjective, wrap_in_ddp
from skd.training.epoch_inputs import EpochInputs, InputBatch
from skd.training.execution import Execution
from skd.training.metrics import MetricSums
from skd.training.optimizer import make_optimizer, optimizer_tensors
from skd.training.resources import DeviceDataset
from skd.training.teacher import FrozenTeacher

DRY_BATCH = 2  # images of the pass that shows the shapes of the networks' outputs


@dataclass
class TrainingStep:
    """A training step of a run, with all that it reads and changes.

    Attributes:
        student, objective: what is trained.
        networks: student and objective as one module, in DistributedDataParallel if there are
            several processes.
        teacher: its outputs enter the losses; ``None`` in a run without a teacher.
        optimizer: over the parameters of student and objective.
        batch_norms: the BatchNorm layers of student and objective.
        inputs: order, views and position of the epoch.
        partition: which parts of a batch this process trains on.
        execution: how the run is executed.
        sums: metrics of the epoch.
        dropouts: layers that draw from the step's own stream.
        generated_pass: the student's forward pass for whole batches, after `generate_code`.
    """

    student: FeatureNetwork
    objective: Objective
    networks: nn.Module
    teacher: FrozenTeacher | None
    optimizer: Optimizer
    batch_norms: BatchNorms
    inputs: EpochInputs
    partition: BatchPartition
    execution: Execution
    sums: MetricSums = field(default_factory=MetricSums)
    dropouts: tuple[StepDropout, ...] = ()
    generated_pass: ForwardPass | None = None

    def run(self, size: int, draws: Draws) -> None:
        """Train on the batch at the inputs' cursor. The caller has loaded the first part of it.

        Args:
            size: images in the batch.
            draws: random numbers of the step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._seed_dropouts(draws)
        parts = self.partition.own_parts(size)
        finite = []
        for number, part in enumerate(parts):
            if number > 0:
                self.inputs.load_next()
            with self.partition.gradient_sync(self.networks, last=part is parts[-1]):
                finite.append(self._backward(part, len(parts), draws))
        self.optimizer.step()
        self.objective.after_step(self.partition.team)
        self.batch_norms.after_step(self.partition.team)
        self.sums.count_finite_step(finite, self.inputs.cursor)
        self.inputs.cursor += 1

    def _backward(self, part: range, num_parts: int, draws: Draws) -> Tensor:
        """Add the gradient of one part of the batch; return whether its loss is finite."""
        inputs = self.inputs.batch(part)
        set_first_image(self.dropouts, part.start)
        is_whole = len(part) == self.inputs.recipe.batch_size
        student, losses = self._forward(
            inputs, part.start, draws, self.generated_pass if is_whole else None
        )
        (losses.total / num_parts).backward()  # division by 1 changes no bit
        target = main_target(inputs.target, inputs.second_target, inputs.mix)
        self.sums.update(losses, student, target)
        return torch.isfinite(losses.total.detach())

    def _forward(
        self, inputs: InputBatch, first: int, draws: Draws, forward_pass: ForwardPass | None = None
    ) -> tuple[Outputs, Losses]:
        """Return the student's outputs and the losses on a part of the batch.

        Args:
            inputs: the part.
            first: place of its first image in the batch.
            draws: random numbers of the step.
            forward_pass: replaces the student's forward pass; ``None``: the student's own.
        """
        images, strong = inputs.images, inputs.strong
        if self.execution.memory_format == torch.contiguous_format:
            images = images.contiguous()
            strong = None if strong is None else strong.contiguous()
        is_half = self.execution.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_half):
            teacher = self._teacher_outputs(images, inputs)
            teacher_on_strong = None if strong is None else self._teacher_outputs(strong, inputs)

            def make_batch(student: Outputs, student_on_strong: Outputs | None) -> Batch:
                return Batch(
                    student,
                    teacher,
                    inputs.target,
                    inputs.indices,
                    self.inputs.epoch,
                    draws,
                    peers=self.partition.team,
                    first=first,
                    second_target=inputs.second_target,
                    mix=inputs.mix,
                    strong=None
                    if student_on_strong is None
                    else StrongView(student_on_strong, teacher_on_strong),
                )

            return self.networks(images, make_batch, strong, forward_pass)

    def _teacher_outputs(self, images: Tensor, inputs: InputBatch) -> Outputs | None:
        return self.teacher and self.teacher.outputs(images, inputs.indices, inputs.view_numbers)

    def _seed_dropouts(self, draws: Draws) -> None:
        """Give the step's seeds to the layers that need them; other networks draw nothing."""
        if self.dropouts:
            draw_step_seeds(self.dropouts, draws.generator("dropout"))

    def generate_code(self, draws: Draws) -> None:
        """Compile the student's forward pass for whole batches, and all kernels of a step.

        This runs one step and restores the tensors that the step changes.

        Args:
            draws: random numbers of that step.

        Raises:
            CompilerError: the compiler fails.
        """
        with CAPTURE_LOCK:
            try:
                run_and_restore(lambda: self._trial_step(draws), self.changed_tensors)
            except Exception as error:  # compilers raise errors of any type
                self.generated_pass = None
                raise CompilerError.of(error) from error
        self.optimizer.zero_grad(set_to_none=True)

    def _trial_step(self, draws: Draws) -> None:
        """Train on one batch, compiling on the way. `run_and_restore` undoes its changes."""
        size = self.inputs.recipe.batch_size
        self.generated_pass = self.student.forward_features
        if self.execution.compiled:
            inputs = self.inputs.batch(range(size))
            self._seed_dropouts(draws)
            mask = outputs_with_gradient(
                lambda outputs: self._forward(inputs, 0, draws, lambda _: outputs)[1].total,
                self._forward(inputs, 0, draws)[0],
            )
            self.generated_pass = compile_network(self.student, mask)
        self.run(size, draws)

    def changed_tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a step changes, by name. The first step creates some of them."""
        weights = {
            f"{part} {name}": tensor
            for part, module in (("student", self.student), ("objective", self.objective))
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        }
        sums = {f"sum {name}": value for name, value in self.sums.items()}
        state = optimizer_tensors(self.optimizer)
        return {**weights, **state, **sums, "cursor": self.inputs.cursor}


def build_step(
    spec: RunSpec,
    dataset: DeviceDataset,
    teacher: FrozenTeacher | None,
    execution: Execution,
    partition: BatchPartition,
) -> TrainingStep:
    """Return the training step of a run, before its first epoch.

    Raises:
        DivisionError: the batches cannot be divided as the partition requires.
        UnfitError: a loss does not work on these networks.
        KernelsError: the execution's table of kernels does not exist.
    """
    device, recipe = dataset.device, spec.recipe
    views = dataset.views_for_training(recipe)
    strong_views = dataset.strong_views() if needs_strong_view(spec.method) else None
    with seeded(spec.seed, "weights"):
        student = build_model(spec.network, dataset.images.num_classes)
    student.to(device, memory_format=execution.memory_format)

    indices = torch.arange(DRY_BATCH, device=device)
    example = views.batch(indices, torch.zeros_like(indices))
    context = TermContext(
        num_classes=dataset.images.num_classes,
        train_labels=dataset.images.train_labels,
        seed=spec.seed,
        student=dry_pass(student, example),
        teacher=teacher and teacher.outputs(example, indices, torch.zeros_like(indices)),
        group=recipe.bn_batch,
        teacher_modules=teacher and teacher.network and TeacherModules(teacher.network),
        network=NetworkReference(student),
        partner=spec.partner and Partner.of(spec.partner, dataset.images.num_classes, example),
        epochs=recipe.epochs,
    )
    objective = Objective(spec.method, context)
    objective.to(device, memory_format=execution.memory_format)
    partition.check(recipe, objective, len(views.labels))

    trained, is_fast = nn.ModuleList([student, objective]), execution.step != "plain"
    if execution.kernels:
        use_kernels(trained, load_table(execution.kernels))
    # Counting together adds one batch a step, but a strong view is a second batch of the student.
    count_together = is_fast and strong_views is None
    batch_norms = BatchNorms(trained, recipe.bn_batch, count_together)
    networks = wrap_in_ddp(StudentWithObjective(student, objective), partition.team)
    return TrainingStep(
        student=student,
        objective=objective,
        networks=networks,
        teacher=teacher,
        optimizer=make_optimizer(recipe, student, objective, fused=is_fast),
        batch_norms=batch_norms,
        inputs=EpochInputs(views, recipe, partition, spec.seed, strong_views),
        partition=partition,
        execution=execution,
        dropouts=step_dropouts(trained),
    )
