"""AT: the student imitates the teacher's attention (Zagoruyko & Komodakis 2017, 1612.03928)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines._maps import at_smaller_size, stages_after_stem
from baselines._precision import upcast
from skd.terms import Batch, Term, TermContext, TermSettings


def at_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two maps' attention, over batch and positions.

    Attention is the channels' mean square at each position, as one vector of unit length per image.
    The larger map is first average-pooled to the size of the smaller. The paper (equation 2) takes
    the distance of the vectors; the authors' code and RepDistiller take this mean of squares.
    Gradients flow to both sides; a map of zeros has no attention and gets no gradient.

    Args:
        student: (B, C, H, W).
        teacher: (B, C', H', W').
    """
    ours, theirs = map(_attention, at_smaller_size(upcast(student), upcast(teacher)))
    return (ours - theirs).square().mean()


class AT(Term):
    """Attention transfer, summed over all stages after the stem."""

    class Settings(TermSettings):
        """AT's settings."""

        weight: float = 1000.0  # RepDistiller's CIFAR script, beside cross-entropy at 1

    needs = frozenset({"teacher_features"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        # Raises an UnfitError for networks with different numbers of stages.
        stages_after_stem(context.student.stages, context.teacher.stages)

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of the stages' losses."""
        pairs = stages_after_stem(batch.student.stages, batch.teacher.stages)
        return torch.stack([at_loss(*pair) for pair in pairs]).sum()


def _attention(maps: Tensor) -> Tensor:
    """Return (B, H·W), rows of unit length."""
    return F.normalize(maps.square().mean(dim=1).flatten(1))
