"""DIST: correlations instead of the KL divergence (Huang et al., NeurIPS 2022, 2205.10536)."""

import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings

EPSILON = 1e-8  # the authors' code adds it to the product of the deviations


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """Return T²·(β·inter + γ·intra).

    With softmaxes at temperature T, inter is 1 - Pearson's correlation between student and teacher
    over the classes of an image, mean over the batch; intra is the same over the images of a class,
    mean over the classes. The factor T² is from the authors' code. The correlation of a constant
    row or column is 0, so intra is 1 for a batch of one image.

    In float32 at least. Gradients flow to both sides; detach a teacher that must not learn.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        temperature: T > 0.
        beta: weight of inter.
        gamma: weight of intra.
    """
    student, teacher = (
        F.softmax(upcast(logits) / temperature, dim=1)
        for logits in (student_logits, teacher_logits)
    )
    inter = 1 - _correlations(student, teacher).mean()
    intra = 1 - _correlations(student.mT, teacher.mT).mean()
    return (beta * inter + gamma * intra) * temperature**2


def _correlations(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation between the rows of (N, M) and of (N, M): (N,)."""
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    return (x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1) + EPSILON)


class DIST(Term):
    """DIST by its authors' CIFAR-100 recipe: CE + 2·DIST at T = 4."""

    class Settings(TermSettings):
        """DIST's settings."""

        # hunto/image_classification_sota, configs/strategies/distill/dist_cifar.yaml: `dist_t4`.
        weight: float = 2.0
        temperature: PositiveFloat = Field(
            4.0, description="T of both softmaxes; the authors use 1 on ImageNet"
        )
        beta: NonNegativeFloat = Field(1.0, description="weight of the inter-class part")
        gamma: NonNegativeFloat = Field(1.0, description="weight of the intra-class part")

    needs = frozenset({"teacher_logits"})
    reads_target = False
    mixes_images = True  # intra: over the images of the batch

    def forward(self, batch: Batch) -> Tensor:
        """Return DIST's loss on raw or simplified teacher logits, depending on the settings."""
        return dist_loss(
            batch.student.logits,
            batch.teacher.logits,
            temperature=self.settings.temperature,
            beta=self.settings.beta,
            gamma=self.settings.gamma,
        )
