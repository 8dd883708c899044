"""Detection of a collapsed simplifier: does SKD's simplified teacher still teach? No torch.

A network on the teacher's side that minimises its KL divergence to the student has a trivial
solution: to repeat the student's output. On CIFAR-100, the literal reading of the paper's abstract
ends there: the simplified teacher becomes uniform and loses the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from skd.store.records import Collapse, EpochMetrics

# Healthy runs have 0.997 and 1.0 in the diagnostics, collapsed ones 0.01 and 0.0.
LABELS_KEPT = 0.9
INFORMATION_KEPT = 0.1


def detect_collapse(epochs: Sequence[EpochMetrics], num_classes: int) -> Collapse | None:
    """Return whether the simplified teacher has collapsed in the last epoch.

    It has lost the labels if its top-1 on the training views is below 0.9 of the raw teacher's. It
    has lost its information if log C - entropy is below 0.1 of the softened teacher's.

    Args:
        epochs: the epochs of a run.
        num_classes: number of classes, C.

    Returns:
        The result; ``None`` if the run has no diagnostics of a simplifier.
    """
    if not epochs or "entropy_simplified" not in epochs[-1].diagnostics:
        return None
    reasons = [_reason(epoch.diagnostics, num_classes) for epoch in epochs]
    if not reasons[-1]:
        return Collapse(collapsed=False, reason="")
    first = len(reasons)
    while first > 1 and reasons[first - 2]:
        first -= 1
    return Collapse(collapsed=True, reason=reasons[-1], first_epoch=epochs[first - 1].epoch)


def _reason(diagnostics: dict[str, float], num_classes: int) -> str:
    """Return why an epoch counts as collapsed; empty if it does not."""
    reasons = []
    raw_top1, simplified_top1 = diagnostics["top1_raw"], diagnostics["top1_simplified"]
    if not simplified_top1 >= LABELS_KEPT * raw_top1:  # also true for NaN
        reasons.append(
            f"lost the labels: top-1 {simplified_top1:.1f} % of the raw teacher's {raw_top1:.1f} %"
        )
    softened = math.log(num_classes) - diagnostics["entropy_softened"]
    simplified = math.log(num_classes) - diagnostics["entropy_simplified"]
    if not simplified >= INFORMATION_KEPT * softened:
        reasons.append(
            f"lost its information: {simplified:.3f} of the softened teacher's {softened:.3f} nats"
        )
    return "; ".join(reasons)
