"""WTTM: the student matches a transformed teacher (Zheng & Yang, ICLR 2024, 2402.11148)."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings


def wttm_loss(student_logits: Tensor, teacher_logits: Tensor, exponent: float) -> Tensor:
    """Return U·KL(p^γ/U ‖ q), mean over the batch; U is the sum of p^γ over the classes.

    Zheng & Yang 2024, section 4: p and q are the teacher's and student's softmaxes at temperature
    1. The power transform p^γ/U is the teacher's softmax at T = 1/γ. U is 1 for a one-hot p and
    C^(1-γ) for a uniform p, so that smooth targets have larger weights. There is no factor T².

    Computed with logarithms, in float32 at least. Gradients flow to both sides; detach a teacher
    that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        exponent: γ, above 0.
    """
    student, teacher = (
        F.log_softmax(upcast(logits), dim=1) for logits in (student_logits, teacher_logits)
    )
    power = exponent * teacher
    transformed = F.log_softmax(power, dim=1)
    divergence = F.kl_div(student, transformed, reduction="none", log_target=True).sum(dim=1)
    return (power.logsumexp(dim=1).exp() * divergence).mean()


class WTTM(Term):
    """CE + β·WTTM, with γ and β to be set for each pair."""

    class Settings(TermSettings):
        """WTTM's settings."""

        # Appendix A.4 of the paper tunes γ and β by pair; these are for resnet32x4 → resnet8x4.
        weight: float = 3.0
        exponent: Annotated[float, Field(gt=0, le=1)] = Field(
            0.1, description="gamma of the teacher's power transform: 1 divided by its temperature"
        )

    needs = frozenset({"teacher_logits"})
    reads_target = False

    def forward(self, batch: Batch) -> Tensor:
        """Return WTTM's loss on raw or simplified teacher logits, depending on the settings."""
        return wttm_loss(
            batch.student.logits, batch.teacher.logits, exponent=self.settings.exponent
        )
