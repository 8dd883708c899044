"""The interface of losses: everything that a file in ``baselines/`` may import from skd."""

from skd.common.errors import UnfitError
from skd.common.frozen import added_later
from skd.losses.teacher_modules import TeacherModules
from skd.losses.term import (
    Batch,
    Classification,
    Need,
    NetworkReference,
    Partner,
    Peers,
    StrongView,
    Term,
    TermContext,
    TermSettings,
)
from skd.losses.transformation import Transformation, TransformationSettings
from skd.models.network import FeatureNetwork, MissingPartError, Outputs

__all__ = [
    "Batch",
    "Classification",
    "FeatureNetwork",
    "MissingPartError",
    "Need",
    "NetworkReference",
    "Outputs",
    "Partner",
    "Peers",
    "StrongView",
    "TeacherModules",
    "Term",
    "TermContext",
    "TermSettings",
    "Transformation",
    "TransformationSettings",
    "UnfitError",
    "added_later",
]
