"""The collapse control: does SKD's simplified teacher still teach? Imports no torch.

A teacher-side network that minimises its KL to the student has a cheap way out: to say what the
student says already. Measured on CIFAR-100, the plain reading of the abstract ends there: a uniform
teacher that has lost the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from skd.store.records import Collapse, EpochMetrics

# Far from what healthy runs show (0.997 and 1.0 in the probe) and from nothing (0.01 and 0.0).
LABELS_KEPT = 0.9
INFORMATION_KEPT = 0.1


def detect_collapse(epochs: Sequence[EpochMetrics], num_classes: int) -> Collapse | None:
    """Return whether the simplified teacher has collapsed by the last epoch.

    Lost labels: its top-1 on the training views is below 0.9 of the raw teacher's. Lost
    information: log C − entropy is below 0.1 of the softened teacher's. None where no simplifier
    was watched.
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


def _reason(seen: dict[str, float], num_classes: int) -> str:
    reasons = []
    labels, kept = seen["top1_raw"], seen["top1_simplified"]
    if not kept >= LABELS_KEPT * labels:  # NaN has lost them too
        reasons.append(f"lost the labels: top-1 {kept:.1f} % of the raw teacher's {labels:.1f} %")
    softened = math.log(num_classes) - seen["entropy_softened"]
    simplified = math.log(num_classes) - seen["entropy_simplified"]
    if not simplified >= INFORMATION_KEPT * softened:
        reasons.append(
            f"lost its information: {simplified:.3f} of the softened teacher's {softened:.3f} nats"
        )
    return "; ".join(reasons)
