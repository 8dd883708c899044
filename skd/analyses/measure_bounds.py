"""Whether stated accuracies and losses are those of stored test logits. Imports no torch.

Pure functions. Logits are stored as float16, so that images whose label is nearly tied with another
class may count in one way or the other, and the loss is known within a margin: hence ranges.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from skd.analyses.records import MeasureBounds
from skd.store.records import Record, TeacherCard

FLOAT16_RELATIVE_ERROR, FLOAT16_ABSOLUTE_ERROR = (
    1.1 * 2.0**-11,
    2.0**-24,
)  # of a float16: relative, and of the smallest ones
SLACK = 1e-6  # percent, or nats: of sums in another order
MEASURE_NAMES = {"top1": "top-1", "top5": "top-5", "loss": "test loss"}


def measure_bounds(logits: np.ndarray, labels: np.ndarray) -> MeasureBounds:
    """Return between which values the measures lay before the logits were rounded to float16.

    Args:
        logits: as stored, (M, C).
        labels: (M,).
    """
    places = np.arange(len(labels))
    label = logits[places, labels][:, None]
    margins = label - logits
    margins[places, labels] = np.inf  # no class is ahead of itself
    error = FLOAT16_RELATIVE_ERROR * (np.abs(logits) + np.abs(label)) + FLOAT16_ABSOLUTE_ERROR
    ahead_at_most, ahead_at_least = ((margins <= error).sum(axis=1), (margins < -error).sum(axis=1))
    accuracies = {
        f"top{k}": tuple(float(100 * (n < k).mean()) for n in (ahead_at_most, ahead_at_least))
        for k in (1, 5)
    }
    log_chances = log_softmax(logits, axis=1)
    slopes = np.exp(log_chances)  # of an image's loss by its logits
    slopes[places, labels] -= 1
    # To first order, and twice that for what the slopes themselves change.
    margin = 2 * float(
        (np.abs(slopes) * (FLOAT16_RELATIVE_ERROR * np.abs(logits) + FLOAT16_ABSOLUTE_ERROR))
        .sum(axis=1)
        .mean()
    )
    loss = float(-log_chances[places, labels].mean())
    return MeasureBounds(**accuracies, loss=(loss - margin, loss + margin))


def contradictions(record: Record | TeacherCard, bounds: MeasureBounds) -> list[str]:
    """Return which of the stated measures cannot be those of the logits, as phrases.

    Args:
        record: a run's record, or a teacher's card, which states no loss.
        bounds: of the stored test logits.
    """
    if isinstance(record, TeacherCard):
        values = {"top1": record.test_top1, "top5": record.test_top5}
    else:
        last = record.epochs[-1]
        values = {"top1": last.test_top1, "top5": last.test_top5, "loss": last.test_loss}
    said = []
    for name, value in values.items():
        low, high = getattr(bounds, name)
        if not low - SLACK <= value <= high + SLACK:
            between = f"{low:.4f}" if high - low < SLACK else f"{low:.4f} to {high:.4f}"
            said.append(f"{MEASURE_NAMES[name]} {value:.4f}, and its test logits give {between}")
    return said
