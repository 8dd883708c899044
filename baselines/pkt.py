"""PKT: who is near whom, as probabilities, is alike (Passalis & Tefas 2018, 1803.10837)."""

import torch
from torch import Tensor

from baselines._precision import upcast
from skd.terms import Batch, Term, TermSettings

EPSILON = 1e-7  # of the authors' code: in the norms and in the logarithm


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all B² pairs of p·log((p + 1e-7)/(q + 1e-7)).

    p is the teacher's and q the student's probability of image j given image i: their cosine,
    brought to 0..1 by (cos + 1)/2, over the sum of row i. The paper sums over the pairs of
    distinct images; this mean over all is the authors' code and RepDistiller's. Of one image alone
    the loss is 0. Gradients flow to both sides.

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
    mixes_images = True  # by pairs

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of the pooled features."""
        return pkt_loss(batch.student.pooled, batch.teacher.pooled)


def _probabilities(features: Tensor) -> Tensor:
    """Return the pairs' conditional probabilities, (B, B), rows sum to 1."""
    features = upcast(features)
    norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)  # its slope at 0 is 0, not NaN
    unit = features / (norms + EPSILON)
    similarities = (unit @ unit.mT + 1) / 2
    return similarities / similarities.sum(dim=1, keepdim=True)
