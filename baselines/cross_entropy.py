"""Cross-entropy with the labels: the student-only loss, and a part of every other method."""

import torch.nn.functional as F
from torch import Tensor

from skd.terms import Batch, Term


class CrossEntropy(Term):
    """Mean cross-entropy of the student's logits, without label smoothing."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        return F.cross_entropy(batch.student.logits, batch.target)
