"""The interface of a loss term: everything that a file in ``baselines/`` may import from skd."""

from skd.common.errors import UnfitError
from skd.losses.term import (
    Batch,
    Need,
    Peers,
    Term,
    TermContext,
    TermSettings,
)

__all__ = [
    "Batch",
    "Need",
    "Peers",
    "Term",
    "TermContext",
    "TermSettings",
    "UnfitError",
]
