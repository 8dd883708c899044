"""MLKD's loss on one view: alignment of instances, batch and classes (Jin et al., CVPR 2023).

The authors train on two views of each image, as `mlkd_two_views` does. This term is the weak view's
loss in their code. It leaves out the strong view's cross-entropy and instance alignment, and the
weak view's instance alignments at T = 2 and 6, which their code adds a second time, without the
mask, to the strong view's loss. So it can be compared with other methods at equal cost.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings


def mlkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperatures: tuple[float, ...]
) -> Tensor:
    """Return the sum over T of m·(instance + batch) + m'·class.

    p and q are the teacher's and student's softmaxes at T, (B, C): instance is T²·KL(p ‖ q), mean
    over the batch; batch is ‖ppᵀ - qqᵀ‖²/B; class is ‖pᵀp - qᵀq‖²/C (squared Frobenius norms,
    without T²). The authors' code computes masks of the less confident half of the images and of
    the classes, but multiplies a loss by a mask only after its reduction. This is a product with
    the mask's mean, m or m', which is ½ for an even number without ties.

    In float32 at least. Gradients flow to both sides, but not through the masks; detach a teacher
    that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        temperatures: each T > 0; a repeated temperature counts twice.
    """
    student, teacher = (upcast(logits) for logits in (student_logits, teacher_logits))
    images, classes = student.shape
    confidence = F.softmax(teacher.detach(), dim=1)
    image_share = _share_up_to_median(confidence.amax(dim=1))
    class_share = _share_up_to_median(confidence.sum(dim=0))
    losses = []
    for temperature in temperatures:
        log_q = F.log_softmax(student / temperature, dim=1)
        log_p = F.log_softmax(teacher / temperature, dim=1)
        instance = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        q, p = log_q.exp(), log_p.exp()
        batch_loss = (p @ p.mT - q @ q.mT).square().sum() / images
        class_loss = (p.mT @ p - q.mT @ q).square().sum() / classes
        losses.append(
            image_share * (temperature**2 * instance + batch_loss) + class_share * class_loss
        )
    return torch.stack(losses).sum()


def _share_up_to_median(values: Tensor) -> Tensor:
    return (values <= values.median()).to(values.dtype).mean()


class MLKD(Term):
    """MLKD's loss on one view: 0.1·CE + 0.9·MLKD."""

    class Settings(TermSettings):
        """MLKD's settings."""

        # Jin-Ying/Multi-Level-Logit-Distillation, mdistiller/engine/cfg.py and KD_ours.py.
        weight: float = 0.9
        cross_entropy: float = 0.1
        temperatures: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = Field(
            (2.0, 3.0, 4.0, 5.0, 6.0),
            description="T of the softmaxes; on ImageNet the authors have 1 instead of 4",
        )

    needs = frozenset({"teacher_logits"})
    reads_target = False
    mixes_images = True  # the batch and class losses compare images

    def forward(self, batch: Batch) -> Tensor:
        """Return MLKD's loss on raw or simplified teacher logits, depending on the settings."""
        return mlkd_loss(
            batch.student.logits, batch.teacher.logits, temperatures=self.settings.temperatures
        )
