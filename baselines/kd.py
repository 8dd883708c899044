"""KD: the student imitates the teacher's softened distribution (Hinton et al. 2015, 1503.02531)."""

import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return T²·KL(softmax(teacher/T) ‖ softmax(student/T)), mean over the batch.

    Hinton et al. 2015, section 2: with T², the gradient's size does not depend on T. Gradients flow
    to both sides; detach a teacher that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        temperature: T > 0.
    """
    student = F.log_softmax(upcast(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(upcast(teacher_logits) / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class KD(Term):
    """KD by the recipe of RepDistiller and mdistiller: 0.1·CE + 0.9·KD at T = 4."""

    class Settings(TermSettings):
        """KD's settings."""

        weight: float = 0.9
        cross_entropy: float = 0.1
        temperature: PositiveFloat = Field(4.0, description="T of both softmaxes")

    needs = frozenset({"teacher_logits"})
    reads_target = False

    def forward(self, batch: Batch) -> Tensor:
        """Return KD's loss on raw or simplified teacher logits, depending on the settings."""
        return kd_loss(
            batch.student.logits, batch.teacher.logits, temperature=self.settings.temperature
        )
