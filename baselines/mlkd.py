"""MLKD: alignment of instances, batch and classes at several temperatures (Jin et al., CVPR 2023).

Only the loss, on the one view that the harness has. The authors train on two views of each image,
a weak and a strong one (RandAugment), for 240 to 960 epochs. What is here is their code's loss of
the weak view; the strong view's cross-entropy and instance alignment are left out, and so are the
weak view's instance alignments at T = 2 and 6 that the code adds once more, without the mask,
among the strong view's.
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

    With p and q the teacher's and student's softmaxes at T, (B, C):
    instance is T²·KL(p ‖ q), mean over the batch; batch is ‖ppᵀ - qqᵀ‖²/B; class is
    ‖pᵀp - qᵀq‖²/C (squared Frobenius norms, without T²). The authors' code masks the less
    confident half of the images and of the classes, but multiplies an already reduced loss by the
    mask. So do m and m': the masks' means, ½ where the number is even and none tie.

    In float32 at least. Gradients flow to both sides, not through the masks; detach a teacher
    that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        temperatures: each T > 0; a repeated one counts twice.
    """
    student, teacher = (upcast(logits) for logits in (student_logits, teacher_logits))
    images, classes = student.shape
    confidence = F.softmax(teacher.detach(), dim=1)
    image_share = _share_up_to_median(confidence.amax(dim=1))
    class_share = _share_up_to_median(confidence.sum(dim=0))
    levels = []
    for temperature in temperatures:
        log_q = F.log_softmax(student / temperature, dim=1)
        log_p = F.log_softmax(teacher / temperature, dim=1)
        instance = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        q, p = log_q.exp(), log_p.exp()
        of_batch = (p @ p.mT - q @ q.mT).square().sum() / images
        of_classes = (p.mT @ p - q.mT @ q).square().sum() / classes
        levels.append(
            image_share * (temperature**2 * instance + of_batch) + class_share * of_classes
        )
    return torch.stack(levels).sum()


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
            (2.0, 3.0, 4.0, 5.0, 6.0), description="the T of all levels; on ImageNet 1 for 4"
        )

    needs = frozenset({"teacher_logits"})
    mixes_images = True  # aligns the batch, and classes over it

    def forward(self, batch: Batch) -> Tensor:
        """Return MLKD's loss on the teacher logits that the settings chose."""
        return mlkd_loss(
            batch.student.logits, batch.teacher.logits, temperatures=self.settings.temperatures
        )
