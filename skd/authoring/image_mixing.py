"""Check whether a batch's loss is the mean over its parts, as several GPUs require."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skd.authoring.trial import TRIAL_DATASET, TRIAL_RECIPE, trial_network
from skd.data import load_dataset
from skd.losses.objective import Objective
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import Alone, Batch, NetworkReference, Partner, StrongView, TermContext
from skd.losses.transformation import Transformation
from skd.models import Outputs, build_model
from skd.randomness import Draws
from skd.study.spec import MethodSpec, RunSpec

TOLERANCE = 1e-4  # relative: the size of a batch changes the order of its multiplications


def undeclared_mixing(spec: RunSpec, teacher: nn.Module | None) -> str:
    """Return which terms mix a batch's images without declaring it, or an empty string.

    Compares the losses of a batch and of its two halves, and the buffers after the step. Terms read
    the teacher's raw logits, since a transformation's groups are a setting. BatchNorm is in
    evaluation mode, since the training loop chooses its groups.
    """
    whole, halves = (_losses_and_buffers(spec, teacher, parts) for parts in (1, 2))
    problems = []
    for label, (loss, *buffers) in whole.items():
        mean, *half_buffers = halves[label]
        if not _nearly_equal(loss, mean):
            problem = f"its loss is {loss:.6g} on a batch, and {mean:.6g} on its halves on average"
        elif not all(map(_nearly_equal, buffers, half_buffers)):
            problem = "its buffers depend on how a batch is divided: move them in `after_step`"
        else:
            continue
        problems.append(
            f"{label}: {problem}. If the rule compares images, declare `mixes_images = True` in "
            "the class; else draw, and compute constants of the first batch, by `TermContext.group`"
        )
    return "; ".join(problems)


@torch.no_grad()
def _losses_and_buffers(
    spec: RunSpec, teacher: nn.Module | None, parts: int
) -> dict[str, list[Tensor]]:
    """Return the loss of a batch in some number of parts, and the buffers after the step, by term.

    Only for the terms that do not declare that they mix images.
    """
    objective, batches = _objective_and_parts(spec, spec.method.with_raw_logits(), teacher, parts)
    losses = [objective(batch).by_term for batch in batches]
    objective.after_step(Alone())
    return {
        label: [torch.stack([loss[label] for loss in losses]).mean(), *term.buffers()]
        for label, term in objective.terms.items()
        if not term.mixes_images
    }


@torch.no_grad()
def undeclared_coupling(spec: RunSpec, teacher: nn.Module | None) -> str:
    """Return which transformations couple a batch's images without saying so, or an empty string.

    Compares the logits and own losses of a batch and of its two halves, with weights that are moved
    from their initial values: zeros would hide the images from each other.
    """
    results = []
    for parts in (1, 2):
        objective, batches = _objective_and_parts(spec, spec.method, teacher, parts)
        generator = torch.Generator().manual_seed(0)
        for parameter in objective.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        results.append(
            {
                name: _logits_and_loss(rule, batches)
                for name, rule in objective.transformations.items()
                if rule.partition_problem(TRIAL_RECIPE.batch_size // 2) is None
            }
        )
    whole, halves = results
    return "; ".join(
        f"{name}: its {what} on a batch and on its halves differ. If the images of a batch affect "
        "each other, return why in `partition_problem`"
        for name, values in whole.items()
        for what, one, other in zip(("logits", "own losses"), values, halves[name], strict=True)
        if not _nearly_equal(one, other)
    )


def _logits_and_loss(rule: Transformation, batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """Return a transformation's logits of all batches, and its mean own loss."""
    logits = [rule(batch) for batch in batches]
    own = [rule.own_loss(batch, each) for batch, each in zip(batches, logits, strict=True)]
    losses = [torch.zeros(()) if loss is None else loss for loss in own]
    return torch.cat(logits), torch.stack(losses).mean()


def _objective_and_parts(
    spec: RunSpec, method: MethodSpec, teacher: nn.Module | None, parts: int
) -> tuple[Objective, list[Batch]]:
    """Return a run's objective for some method, and a step's batch in some number of parts."""
    images, size = load_dataset(TRIAL_DATASET), TRIAL_RECIPE.batch_size
    inputs, target = images.train_images[:size] / 255, images.train_labels[:size]
    student = trial_network(spec.network)
    outputs = [each and each.forward_features(inputs) for each in (student, teacher)]
    context = TermContext(
        images.num_classes,
        images.train_labels,
        spec.seed,
        *outputs,
        group=size // 2,
        teacher_modules=teacher and TeacherModules(teacher),
        network=NetworkReference(student),
        partner=spec.partner and _partner(spec.partner, inputs, images.num_classes),
        epochs=spec.recipe.epochs,
    )
    objective = Objective(method, context).eval()
    objective.begin_epoch(1)
    draws, batches = Draws(spec.seed), []
    for rows in torch.arange(size).split(size // parts):
        part = [each and _select_rows(each, rows) for each in outputs]
        strong = StrongView(*part)  # any other outputs of the same images would do
        batches.append(
            Batch(*part, target[rows], rows, 1, draws, first=int(rows[0]), strong=strong)
        )
    return objective, batches


def _partner(name: str, images: Tensor, num_classes: int) -> Partner:
    outputs = trial_network(name).forward_features(images)
    return Partner(name, outputs, lambda: build_model(name, num_classes))


def _select_rows(outputs: Outputs, rows: Tensor) -> Outputs:
    """Return the outputs of some images."""
    stages, preactivations = (
        tuple(each[rows] for each in maps) for maps in (outputs.stages, outputs.preactivations)
    )
    return Outputs(outputs.logits[rows], stages, preactivations, outputs.pooled[rows])


def _nearly_equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors are equal except for rounding; NaN equals NaN."""
    first, second = first.double(), second.double()
    size = first.nan_to_num().abs().amax().item() if first.ndim and first.numel() else 0.0
    return torch.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True)
