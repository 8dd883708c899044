"""Cross-entropy with the labels: the student-only loss, and a part of every other method."""

from pydantic import field_validator
from torch import Tensor

from baselines._losses import mean_label_loss
from skd.terms import Batch, Term, TermSettings, added_later


class CrossEntropy(Term):
    """Mean cross-entropy of the student's logits.

    A mixed image has two classes: its loss is the mean of theirs, weighted by their shares
    (1710.09412, 1905.04899).
    """

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

    reads_second_target = True

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean over the batch.

        With label smoothing a, the target of class y is (1 - a)·onehot(y) + a/C.
        """
        return mean_label_loss(batch.student.logits, batch, self.settings.label_smoothing)
