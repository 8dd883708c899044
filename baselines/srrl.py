"""SRRL: softmax regression representation learning (Yang et al., ICLR 2021).

The student's feature should give the teacher's logits when the teacher's frozen classifier reads
it, beside being like the teacher's feature.
"""

import math
from typing import Literal

from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from baselines._losses import mean_squared_error
from baselines._maps import last_maps
from skd.terms import Batch, Outputs, Term, TermContext, TermSettings


class SRRL(Term):
    """CE + the error of the feature + the error of its logits by the teacher's classifier.

    The teacher's logits are computed from its pooled feature, so stored pooled features suffice.
    """

    class Settings(TermSettings):
        """SRRL's settings."""

        weight: float = 1.0
        connector: Literal["pooled", "maps"] = Field(
            "pooled",
            description="the connector reads the student's pooled feature (as in SimKD's toolbox, "
            "on CIFAR-100) or its last map (as in SRRL's code, on ImageNet)",
        )
        feature_weight: NonNegativeFloat = Field(
            1.0, description="factor of the error of the feature"
        )
        regression_weight: NonNegativeFloat = Field(
            1.0, description="factor of the error of the logits by the teacher's classifier"
        )

    needs = frozenset({"teacher_pooled", "teacher_classifier"})
    reads_target = False

    def __init__(self, settings: Settings, context: TermContext) -> None:
        super().__init__(settings, context)
        self.teacher = context.teacher_modules
        channels, width = self._maps(context.student).shape[1], context.teacher.pooled.shape[1]
        convolution = nn.Conv2d(channels, width, 1, bias=False)
        if settings.connector == "maps":  # its authors' initialisation
            nn.init.normal_(convolution.weight, std=math.sqrt(2 / width))
        self.connector = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted sum of both errors, each the mean over images and elements."""
        feature = self.connector(self._maps(batch.student)).mean(dim=(2, 3))
        target = batch.teacher.pooled
        logits, target_logits = map(self.teacher.classifier, (feature, target))
        return self.settings.feature_weight * mean_squared_error(
            feature, target
        ) + self.settings.regression_weight * mean_squared_error(logits, target_logits)

    def _maps(self, student: Outputs) -> Tensor:
        """Return what the connector reads; the pooled feature is a map of one position."""
        if self.settings.connector == "maps":
            return last_maps(student)
        return student.pooled[:, :, None, None]
