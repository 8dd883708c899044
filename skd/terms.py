"""What a file of ``baselines/`` may use: the contract of a loss term."""

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
