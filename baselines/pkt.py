"""PKT: match the probabilities of similar images (Passalis & Tefas 2018, 1803.10837)."""

import torch
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings

EPSILON = 1e-7  # of the authors' code: in the norms and in the logarithm


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all B² pairs of p·log((p + 1e-7)/(q + 1e-7)).

    p is the teacher's and q the student's probability of image j given image i: the cosine of the
    two images' features, scaled to 0..1 by (cos + 1)/2, divided by the sum of row i. The paper sums
    over the pairs of distinct images; the authors' code and RepDistiller take this mean over all
    pairs. The loss of a single image is 0. Gradients flow to both sides.

    Args:
        student: (B, D).
        teacher: (B, D').
    """
    p, q = _probabilities(teacher), _probabilities(student)
    return (p * ((p + EPSILON) / (q + EPSILON)).log()).mean()


class PKT(Term):
    """Probabilistic knowledge transfer of the pooled features."""

    class Settings(TermSettings):
        """PKT's settings."""

        weight: float = 30000.0  # RepDistiller's CIFAR script, beside cross-entropy at 1

    needs = frozenset({"teacher_pooled"})
    reads_target = False
    mixes_images = True  # compares pairs of images

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of the pooled features."""
        return pkt_loss(batch.student.pooled, batch.teacher.pooled)


def _probabilities(features: Tensor) -> Tensor:
    """Return the pairs' conditional probabilities, (B, B); each row sums to 1."""
    features = upcast(features)
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)  # its gradient at 0 is 0
    unit = features / (norms + EPSILON)
    similarities = (unit @ unit.mT + 1) / 2
    return similarities / similarities.sum(dim=1, keepdim=True)
