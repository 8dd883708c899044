"""Cross-entropy with the labels: the student-only loss, and a part of every other method."""

import torch.nn.functional as F
from pydantic import field_validator
from torch import Tensor

from skd.terms import Batch, Term, TermSettings, added_later


class CrossEntropy(Term):
    """Mean cross-entropy of the student's logits."""

    class Settings(TermSettings):
        """Cross-entropy's settings."""

        label_smoothing: float = added_later(
            0.0,
            neutral=0.0,
            description="share of the target that is spread evenly over all classes (1512.00567)",
        )

        @field_validator("label_smoothing")
        @classmethod
        def _check_smoothing(cls, label_smoothing: float) -> float:
            if not 0 <= label_smoothing < 1:
                raise ValueError(f"must be at least 0 and less than 1, got {label_smoothing:g}")
            return label_smoothing

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean over the batch.

        With label smoothing a, the target of class y is (1 - a)·onehot(y) + a/C.
        """
        smoothing = self.settings.label_smoothing
        return F.cross_entropy(batch.student.logits, batch.target, label_smoothing=smoothing)
