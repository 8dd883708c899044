"""PESF-KD's adapter on the teacher's side (2205.15308), a reconstruction.

The adapter and its cross-entropy are those of the text and the authors' public code. The weights,
the temperature and the adapter's learning rate of the paper are not known here, and the loss that
the public code runs is not the paper's. What is assumed: docs/assumptions.md, P1 to P5.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from baselines._distributions import entropy, kl_divergence, top1
from baselines._losses import label_losses
from baselines._precision import upcast
from skd.terms import Batch, TermContext, Transformation, TransformationSettings


class PESFSettings(TransformationSettings):
    """The adapter's settings."""

    width: PositiveInt = Field(32, description="width of the bottleneck")
    output_init: Literal["default", "zero"] = Field(
        "default",
        description="the last layer's initial weights: PyTorch's, or zero, so that training starts "
        "from the raw teacher",
    )
    weight: NonNegativeFloat = Field(
        1.0, description="weight of the cross-entropy of the adapted logits"
    )
    learning_rate_multiplier: PositiveFloat = Field(
        0.0004,
        description="factor on the student's learning rate; at the common 0.05 the rate is 2e-5, "
        "that of the authors' public code",
    )


class PESF(Transformation):
    """Adds an adapter's output to the teacher's logits: t' = t + A(f).

    f is the frozen teacher's pooled feature (B, D), and A is linear D → C, linear C → width, ReLU,
    linear width → C, with biases. The student's loss on t' reaches the adapter, and so does the
    own loss: weight · CE(t', y). By default t' differs from t at the start, by the output of
    PyTorch's initial weights.
    """

    Settings = PESFSettings
    needs = frozenset({"teacher_logits", "teacher_pooled"})
    reads_second_target = True

    def __init__(self, settings: PESFSettings, context: TermContext) -> None:
        super().__init__(settings, context)
        features, classes = context.teacher.pooled.shape[1], context.num_classes
        self.adapter = nn.Sequential(
            nn.Linear(features, classes),
            nn.Linear(classes, settings.width),
            nn.ReLU(),
            nn.Linear(settings.width, classes),
        )
        if settings.output_init == "zero":
            nn.init.zeros_(self.adapter[-1].weight)
            nn.init.zeros_(self.adapter[-1].bias)

    def forward(self, batch: Batch) -> Tensor:
        """Return the adapted teacher logits, (B, C)."""
        return batch.teacher.logits + self.adapter(batch.teacher.pooled)

    def own_loss(self, batch: Batch, logits: Tensor) -> Tensor | None:
        """Return the weighted cross-entropy of the adapted logits, or ``None`` at weight 0.

        A mixed image has the shares of its two classes, as in the student's cross-entropy.
        """
        if self.settings.weight == 0:
            return None
        return self.settings.weight * label_losses(upcast(logits), batch).mean()

    def diagnostics(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Return the adapter's effect: KL and entropies in nats (T = 1), top-1 in percent.

        ``offset`` is the mean absolute value of the adapter's output.
        """
        raw, adapted, student = map(upcast, (batch.teacher.logits, logits, batch.student.logits))
        return {
            "entropy_raw": entropy(raw),
            "entropy_adapted": entropy(adapted),
            "top1_raw": top1(raw, batch.main_target),
            "top1_adapted": top1(adapted, batch.main_target),
            "kl_raw_adapted": kl_divergence(raw, adapted),
            "kl_adapted_student": kl_divergence(adapted, student),
            "offset": (adapted - raw).abs().mean(),
        }
