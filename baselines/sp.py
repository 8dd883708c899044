"""SP: match the similarities of the batch's images (Tung & Mori 2019, 1907.09682)."""

import torch.nn.functional as F
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖G_T - G_S‖²/B², the squared Frobenius distance of the batch's similarities.

    G is the B×B matrix of the images' inner products with rows scaled to unit length. The loss of a
    single image is 0. Gradients flow to both sides.

    Args:
        student: (B, ...), maps or vectors, flattened to one vector per image.
        teacher: (B, ...).
    """
    return (_similarities(teacher) - _similarities(student)).square().mean()


class SP(Term):
    """Similarity-preserving distillation at the last stage."""

    class Settings(TermSettings):
        """SP's settings."""

        weight: float = 3000.0  # RepDistiller's CIFAR script, beside cross-entropy at 1

    needs = frozenset({"teacher_features"})
    reads_target = False
    mixes_images = True  # compares pairs of images

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of the last stages' maps, before pooling."""
        return sp_loss(batch.student.stages[-1], batch.teacher.stages[-1])


def _similarities(features: Tensor) -> Tensor:
    """Return G, (B, B)."""
    flat = upcast(features).flatten(1)
    return F.normalize(flat @ flat.mT)
