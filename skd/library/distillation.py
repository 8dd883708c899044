"""A method's losses for a plain PyTorch loop."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from skd.common.errors import UnfitError
from skd.library.networks import (
    ADVICE,
    as_outputs,
    detached,
    example_outputs,
    forward_outputs,
    missing,
)
from skd.losses.methods import resolve_method, teacher_needs
from skd.losses.objective import Objective
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import (
    MODULE_NEEDS,
    Alone,
    Batch,
    NetworkReference,
    Partner,
    StrongView,
    Term,
    TermContext,
)
from skd.losses.transformation import Transformation
from skd.models.network import FeatureNetwork, Outputs
from skd.models.step_dropout import draw_step_seeds, step_dropouts
from skd.randomness import Draws
from skd.study.sheet import SheetMethod, format_validation_error
from skd.study.sheet_files import StudyError
from skd.study.spec import MethodSpec

Settings = Mapping[str, Mapping[str, Any]]
EXAMPLES = 2  # images of the pass that shows the shapes of the networks' outputs
# What a method reads of a teacher that gives logits only.
_FEATURES = {"teacher_pooled": "pooled features", "teacher_features": "feature maps"}


@dataclass(frozen=True)
class StepLosses:
    """The losses of one batch.

    Attributes:
        total: the scalar to minimise.
        parts: each loss without its weight, by name. They have gradients, too.
        diagnostics: scalars to log, without gradients.
        student: the student's outputs; `student.logits` are (B, C).
    """

    total: Tensor
    parts: dict[str, Tensor]
    diagnostics: dict[str, Tensor]
    student: Outputs


def objective(
    method: str | Mapping[str, Any],
    *,
    student: nn.Module,
    teacher: nn.Module | None = None,
    num_classes: int,
    train_labels: Tensor | None = None,
    settings: Settings | None = None,
    image_size: int | tuple[int, int] = 32,
    epochs: int | None = None,
    partner: str | None = None,
    seed: int = 0,
) -> Distillation:
    """Return the losses of a method for a student and its frozen teacher.

    The teacher is set to evaluation mode, and its parameters need no gradient from then on. The
    student does not change. What the method trains beside the student is on the student's device.

    Args:
        method: a name or a sum of names, such as ``skd+kd``; or a study sheet's description, such
            as ``{"terms": [{"term": "dkd", "teacher": "simplified"}]}``.
        student: a `FeatureNetwork`, or any module that maps images to logits (B, C).
        teacher: the same; not needed for methods without a teacher.
        num_classes: C.
        train_labels: class index of every training image, (N,); only CRD and the like need it.
        settings: settings by the name of a term or a transformation, as in a study sheet:
            ``{"kd": {"temperature": 2}}``.
        image_size: height and width of the images, in pixels.
        epochs: number of epochs of the training; only SoTeacher and the like need it.
        partner: name of the network of this project that a teacher is trained to suit (SFTN). The
            teacher-to-be is then the ``student``.
        seed: of the initial weights of the method's own modules, and of what it draws.

    Raises:
        StudyError: unknown method, term, transformation or setting; names the allowed ones.
        UnfitError: the method cannot be used with these networks; says why.
    """
    spec = _resolve(method, settings or {})
    label = f"the method '{method}'" if isinstance(method, str) else "this method"
    _check_teacher(spec, teacher, label)
    device = next((parameter.device for parameter in student.parameters()), torch.device("cpu"))
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    images = torch.zeros(EXAMPLES, 3, *size, device=device)
    context = TermContext(
        num_classes=num_classes,
        train_labels=_missing_labels(label) if train_labels is None else train_labels,
        seed=seed,
        student=_example(student, images, num_classes, "student", label),
        teacher=teacher and _frozen_example(teacher, images, num_classes, label),
        teacher_modules=TeacherModules(teacher) if isinstance(teacher, FeatureNetwork) else None,
        network=NetworkReference(student),
        partner=partner and Partner.of(partner, num_classes, images),
        epochs=epochs,
    )
    parts = Objective(spec, context).to(device)
    _try(parts, context, (student, teacher), device)
    return Distillation(parts, student, teacher, label, seed)


class Distillation(nn.Module):
    """A method's losses for a student and its frozen teacher; `objective` builds it.

    Its parameters, buffers and state dict are those of the method's own modules. The networks are
    not part of it. A training that continues from the start of an epoch needs the state dicts of
    the student, of this module and of the optimiser.
    """

    def __init__(
        self,
        objective: Objective,
        student: nn.Module,
        teacher: nn.Module | None,
        label: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.objective = objective
        self._networks = (student, teacher)  # in a tuple, they do not become submodules
        self._label = label
        self._draws = Draws(seed)
        self._epoch, self._step, self._is_step_open = 0, 0, False
        self.register_state_dict_pre_hook(_close_step_first)

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self._networks[0]

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher."""
        return self._networks[1]

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return groups for an optimiser, beside the group of the student's parameters.

        Each group has its method's factor on the learning rate, and its own weight decay if it has
        one. Schedulers keep the factors. The list is empty if the method trains nothing of its own.

        Args:
            learning_rate: the student's initial learning rate.
        """
        groups = []
        for group in self.objective.parameter_groups():
            options = {} if group.weight_decay is None else {"weight_decay": group.weight_decay}
            rate = learning_rate * group.learning_rate_multiplier
            groups.append({"params": group.parameters, "lr": rate, **options})
        return groups

    def begin_epoch(self, epoch: int) -> None:
        """Set the weights and the random numbers to an epoch (1-based). Call it before its steps.

        Raises:
            ValueError: the epoch is below 1.
        """
        if epoch < 1:
            raise ValueError(f"epochs start from 1, got {epoch}")
        self._close_step()
        self._epoch, self._step = epoch, 0

    def forward(
        self,
        images: Tensor,
        target: Tensor,
        indices: Tensor | None = None,
        *,
        strong: Tensor | None = None,
        second_target: Tensor | None = None,
        mix: Tensor | None = None,
    ) -> StepLosses:
        """Return the losses of a batch, after a forward pass of the student and of the teacher.

        In training mode, each call is one step: what the method remembers of the batch changes
        before the next one.

        Args:
            images: (B, 3, H, W), the same for student and teacher.
            target: class indices, (B,).
            indices: indices of the images in the training set, (B,); only methods that remember
                images need them (CRD).
            strong: a second, strong view of each image, (B, 3, H, W); only methods that compare
                two views need it.
            second_target: with mixup or CutMix, class indices of the images mixed in, (B,).
            mix: with mixup or CutMix, the first images' shares of the mixed images, (B,).

        Raises:
            RuntimeError: `begin_epoch` has not been called.
            UnfitError: the method reads something that the networks or the arguments lack.
        """
        draws = self._begin_step(images.device)
        if dropouts := step_dropouts(self.student):
            draw_step_seeds(dropouts, draws.generator("dropout"))
        views = [images] if strong is None else [images, strong]
        teacher = [self._teacher_outputs(view) for view in views]
        own = [forward_outputs(self.student, view, "student", self._label) for view in views]
        return self.losses(
            own[0],
            teacher[0],
            target,
            indices,
            strong=None if strong is None else StrongView(own[1], teacher[1]),
            second_target=second_target,
            mix=mix,
        )

    def losses(
        self,
        student: Outputs | Tensor,
        teacher: Outputs | Tensor | None,
        target: Tensor,
        indices: Tensor | None = None,
        *,
        strong: StrongView | None = None,
        second_target: Tensor | None = None,
        mix: Tensor | None = None,
    ) -> StepLosses:
        """Return the losses for outputs that the caller has computed: `Outputs`, or logits (B, C).

        For a student in DistributedDataParallel, or stored outputs of the teacher. Arguments and
        errors as for `forward`, but ``strong`` has outputs.
        """
        self._check_batch(strong, second_target, mix)
        own, frozen = self._as_outputs(student, teacher, len(target))
        if strong is not None:
            strong = StrongView(*self._as_outputs(strong.student, strong.teacher, len(target)))
        if indices is None:
            indices = missing(f"{self._label} reads the indices of the images: give `indices`")
        draws = self._begin_step(own.logits.device)
        batch = Batch(
            own,
            frozen,
            target,
            indices,
            self._epoch,
            draws,
            second_target=second_target,
            mix=mix,
            strong=strong,
        )
        losses = self.objective(batch)
        self._is_step_open = self.training
        own = replace(own, logits=losses.logits)
        return StepLosses(losses.total, losses.by_term, losses.diagnostics, own)

    def _teacher_outputs(self, images: Tensor) -> Outputs | None:
        if self.teacher is None or not any(part.needs for part in self._parts):
            return None
        with torch.no_grad():
            return forward_outputs(self.teacher.eval(), images, "teacher", self._label)

    def _as_outputs(
        self, student: Outputs | Tensor, teacher: Outputs | Tensor | None, count: int
    ) -> tuple[Outputs, Outputs | None]:
        """Return outputs, the teacher's detached."""
        names = [type(network).__name__ for network in self._networks]
        own = as_outputs(student, count, names[0], "student", self._label)
        if teacher is not None:
            teacher = detached(as_outputs(teacher, count, names[1], "teacher", self._label))
        return own, teacher

    def _check_batch(
        self, strong: StrongView | None, second_target: Tensor | None, mix: Tensor | None
    ) -> None:
        """Raise an UnfitError if the method cannot use the batch."""
        if strong is None and any("strong_view" in part.needs for part in self._parts):
            raise UnfitError(
                f"{self._label} reads a second, strong view of each image: give `strong`"
            )
        if (second_target is None) != (mix is None):
            raise UnfitError("mixed images need both `second_target` and `mix`")
        if mix is not None and any(
            part.reads_target and not part.reads_second_target for part in self._parts
        ):
            raise UnfitError(f"{self._label} reads one class an image: do not mix images")

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the student's logits (B, C) for evaluation, in the student's current mode.

        If the method replaces the student's classifier, they are those of its classifier.
        """
        own = forward_outputs(self.student, images, "student", self._label)
        classifier = self.objective.classifier()
        return own.logits if classifier is None else classifier.classify(own).logits

    @property
    def _parts(self) -> list[Term | Transformation]:
        return [*self.objective.terms.values(), *self.objective.transformations.values()]

    def _begin_step(self, device: torch.device) -> Draws:
        """Set the weights and the random numbers to the step; return the numbers' generators."""
        if not self._epoch:
            raise RuntimeError("call begin_epoch(epoch) before the first step of each epoch")
        self._close_step()
        self.objective.begin_epoch(self._epoch, device)
        if self._draws.device != device:
            self._draws = Draws(self._draws.seed, device)
        return self._draws.set_step(self._epoch, self._step)

    def _close_step(self) -> None:
        """Update what the method remembers of the last batch."""
        if self._is_step_open:
            self._is_step_open = False
            self._step += 1
            self.objective.after_step(Alone())


def _close_step_first(module: Distillation, *_: Any) -> None:
    module._close_step()


def _resolve(method: str | Mapping[str, Any], settings: Settings) -> MethodSpec:
    """Return a method's terms and transformations with all their settings."""
    values = {"name": method} if isinstance(method, str) else {"name": "custom", **method}
    try:
        sheet = SheetMethod.model_validate(values)
    except ValidationError as error:
        raise StudyError(format_validation_error("method", error)) from error
    return resolve_method(sheet, settings)


def _check_teacher(spec: MethodSpec, teacher: nn.Module | None, label: str) -> None:
    """Check that a teacher has what a method needs of it.

    Raises:
        UnfitError: it does not; says what is missing.
    """
    needs = teacher_needs(spec)
    if needs and teacher is None:
        raise UnfitError(f"{label} learns from a teacher: give teacher=…")
    if teacher is None or isinstance(teacher, FeatureNetwork):
        return
    lacking = [text for need, text in _FEATURES.items() if need in needs]
    lacking += ["modules"] * bool(needs & MODULE_NEEDS)
    if lacking:
        raise UnfitError(
            f"{label} reads the {' and '.join(lacking)} of the teacher, and "
            f"{type(teacher).__name__} gives logits only; {ADVICE}"
        )


def _missing_labels(label: str) -> Any:
    return missing(
        f"{label} reads the labels of all training images: give train_labels, the class index of "
        "each, (N,)"
    )


def _example(module: nn.Module, images: Tensor, num_classes: int, role: str, label: str) -> Outputs:
    """Return a network's outputs on some images, after checking the number of its logits."""
    outputs = example_outputs(module, images, role, label)
    if (width := outputs.logits.shape[1]) != num_classes:
        raise UnfitError(f"the {role} has {width} logits, and num_classes is {num_classes}")
    return outputs


def _frozen_example(teacher: nn.Module, images: Tensor, num_classes: int, label: str) -> Outputs:
    """Freeze a teacher; return its outputs on some images."""
    teacher.eval().requires_grad_(False)
    return _example(teacher, images, num_classes, "teacher", label)


def _try(
    parts: Objective,
    context: TermContext,
    networks: tuple[nn.Module | None, ...],
    device: torch.device,
) -> None:
    """Compute the losses once on a copy, so that a misfit is an error before the training."""
    trial = copy.deepcopy(parts, {id(network): network for network in networks})
    trial.begin_epoch(1, device)
    indices = torch.arange(EXAMPLES, device=device)
    target = indices % context.num_classes
    own = context.student
    batch = Batch(own, context.teacher, target, indices, 1, Draws(0, device))
    with torch.no_grad():
        trial(replace(batch, strong=StrongView(own, context.teacher)))
