"""SHAKE's shadow head (Li & Jin, NeurIPS 2022), as the paper's text has it.

The authors' code trains another network: a fusion of the teacher's maps in front of the teacher's
classifier, on layer-normalised logits. docs/methods.md compares both.
"""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from baselines._distributions import entropy, kl_divergence, top1
from baselines._precision import upcast
from baselines.kd import kd_loss
from skd.terms import Batch, TermContext, Transformation, TransformationSettings


class SHAKESettings(TransformationSettings):
    """The shadow's settings."""

    width: PositiveInt | None = Field(
        None, description="width of a hidden layer with ReLU; none: the head is one linear layer"
    )
    trains_backbone: bool = Field(
        True,
        description="whether the shadow's loss reaches the student's backbone, or its head alone",
    )
    student_weight: NonNegativeFloat = Field(
        1.0, description="λ: weight of the shadow's divergence from the student"
    )
    temperature: PositiveFloat = Field(4.0, description="T of the shadow's two divergences")


class SHAKE(Transformation):
    """A shadow of the teacher: a second head t' on the student's pooled feature.

    Own loss (equation 5): KL_T(t'←t) + λ·KL_T(t'←s), where KL_T(a←b) is
    T²·KL(softmax(b/T) ‖ softmax(a/T)). Targets are constants: s in the own loss, and t' in the
    student's losses. At the start, t' are the logits of a random head.
    """

    Settings = SHAKESettings
    needs = frozenset({"teacher_logits"})
    reads_target = False  # only its diagnostics read it

    def __init__(self, settings: SHAKESettings, context: TermContext) -> None:
        super().__init__(settings, context)
        features, classes, width = (
            context.student.pooled.shape[1],
            context.num_classes,
            settings.width,
        )
        layers = [features, classes] if width is None else [features, width, classes]
        self.head = nn.Sequential(nn.Linear(*layers[:2]))
        if width is not None:
            self.head.extend([nn.ReLU(), nn.Linear(*layers[1:])])

    def forward(self, batch: Batch) -> Tensor:
        """Return the shadow's logits, (B, C)."""
        pooled = batch.student.pooled
        return self.head(pooled if self.settings.trains_backbone else pooled.detach())

    def for_student(self, logits: Tensor) -> Tensor:
        """Return the shadow's logits as constants."""
        return logits.detach()

    def own_loss(self, batch: Batch, logits: Tensor) -> Tensor:
        """Return the shadow's loss: its divergences from the teacher and from the student."""
        t = self.settings.temperature
        to_teacher = kd_loss(logits, batch.teacher.logits, t)
        to_student = kd_loss(logits, batch.student.logits.detach(), t)
        return to_teacher + self.settings.student_weight * to_student

    def diagnostics(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Return how near the shadow is to both sides: KL at T, entropy in nats, top-1 in %."""
        t = self.settings.temperature
        raw, shadow, student = map(upcast, (batch.teacher.logits, logits, batch.student.logits))
        return {
            "entropy_shadow": entropy(shadow),
            "top1_raw": top1(raw, batch.main_target),
            "top1_shadow": top1(shadow, batch.main_target),
            "kl_raw_shadow": kl_divergence(raw / t, shadow / t),
            "kl_student_shadow": kl_divergence(student / t, shadow / t),
        }
