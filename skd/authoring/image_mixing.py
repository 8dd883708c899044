"""Whether a term's loss of a batch is the mean of that of its parts, as several GPUs need it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skd.authoring.trial import TRIAL_DATASET, TRIAL_RECIPE, made_up_network
from skd.data import load_dataset
from skd.losses.objective import Objective
from skd.losses.term import Alone, Batch, TermContext
from skd.models import Outputs
from skd.randomness import Draws
from skd.study.spec import RunSpec

TOLERANCE = 1e-4  # relative: rows of different batches are multiplied in another order


def undeclared_mixing(spec: RunSpec, teacher: nn.Module | None) -> str:
    """Return which terms mix a batch's images without saying so, or an empty text.

    A batch is shown in halves and whole. What a step leaves in buffers must be the same too. The
    simplifier, whose groups are a setting, is left out, and BatchNorm, whose groups are the loop's,
    does not mix.
    """
    whole, halves = (_seen(spec, teacher, parts) for parts in (1, 2))
    problems = []
    for label, (loss, *buffers) in whole.items():
        mean, *others = halves[label]
        if not _near(loss, mean):
            said = f"its loss is {loss:.6g} on a batch, and {mean:.6g} on its halves on average"
        elif not all(map(_near, buffers, others)):
            said = "its buffers depend on how a batch is divided: move them in `after_step`"
        else:
            continue
        problems.append(
            f"{label}: {said}. Where that is the rule, say so by `mixes_images = True` in the "
            "class; else draw, and fix what is fixed once, by `TermContext.group`"
        )
    return "; ".join(problems)


@torch.no_grad()
def _seen(spec: RunSpec, teacher: nn.Module | None, parts: int) -> dict[str, list[Tensor]]:
    """Return the loss of a batch seen in so many parts, and the buffers after the step, by term.

    Of the terms that do not say that they mix images.
    """
    images, size = load_dataset(TRIAL_DATASET), TRIAL_RECIPE.batch_size
    shown, target = images.train_images[:size] / 255, images.train_labels[:size]
    networks = made_up_network(spec.network), teacher
    outputs = [network and network.forward_features(shown) for network in networks]
    context = TermContext(
        images.num_classes, images.train_labels, spec.seed, *outputs, group=size // 2
    )
    objective = Objective(spec.method, context).eval()
    objective.simplifier = None
    objective.begin_epoch(1)
    draws, losses = Draws(spec.seed), []
    for rows in torch.arange(size).split(size // parts):
        of_part = [all_of and _of(all_of, rows) for all_of in outputs]
        batch = Batch(*of_part, target[rows], rows, 1, draws, first=int(rows[0]))
        losses.append(objective(batch).parts)
    objective.after_step(Alone())
    return {
        label: [torch.stack([loss[label] for loss in losses]).mean(), *term.buffers()]
        for label, term in objective.terms.items()
        if not term.mixes_images
    }


def _of(outputs: Outputs, rows: Tensor) -> Outputs:
    """Return the outputs of some images."""
    stages, before = (
        tuple(maps[rows] for maps in kind) for kind in (outputs.stages, outputs.preactivations)
    )
    return Outputs(outputs.logits[rows], stages, before, outputs.pooled[rows])


def _near(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal but for rounding; NaN equals NaN."""
    one, other = one.double(), other.double()
    size = one.nan_to_num().abs().amax().item() if one.ndim and one.numel() else 0.0
    return torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True)
