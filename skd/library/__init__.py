"""The losses, transformations and networks of this project, for any PyTorch training loop.

See docs/library.md. This package needs the project's own dependencies only, not its extras.
"""

from skd.library import losses
from skd.library.distillation import Distillation, StepLosses, objective
from skd.library.networks import load_network, network, with_features
from skd.losses.discovery import (
    term_class,
    term_classes,
    transformation_class,
    transformation_classes,
)
from skd.losses.methods import method_names
from skd.losses.objective import Objective
from skd.losses.standardisation import standardise_logits
from skd.models import network_names
from skd.terms import (
    Batch,
    FeatureNetwork,
    Outputs,
    Term,
    TermContext,
    TermSettings,
    Transformation,
    TransformationSettings,
    UnfitError,
)

__all__ = [
    "Batch",
    "Distillation",
    "FeatureNetwork",
    "Objective",
    "Outputs",
    "StepLosses",
    "Term",
    "TermContext",
    "TermSettings",
    "Transformation",
    "TransformationSettings",
    "UnfitError",
    "load_network",
    "losses",
    "method_names",
    "network",
    "network_names",
    "objective",
    "standardise_logits",
    "term_class",
    "term_classes",
    "transformation_class",
    "transformation_classes",
    "with_features",
]
