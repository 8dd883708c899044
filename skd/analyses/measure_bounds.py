"""Check recorded accuracies and losses against stored test logits. Does not import torch.

Logits are stored as float16. So an image whose label is nearly tied with another class may count as
correct or not, and the loss is known within a margin: each measure has a range.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from skd.analyses.records import MeasureBounds
from skd.store.records import Record, TeacherCard

FLOAT16_RELATIVE_ERROR = 1.1 * 2.0**-11
FLOAT16_ABSOLUTE_ERROR = 2.0**-24  # of the smallest numbers
SLACK = 1e-6  # percent or nats: sums in another order differ
MEASURE_NAMES = {"top1": "top-1", "top5": "top-5", "loss": "test loss"}


def measure_bounds(logits: np.ndarray, labels: np.ndarray) -> MeasureBounds:
    """Return the ranges of the measures before the logits were rounded to float16.

    Args:
        logits: as stored, (M, C).
        labels: (M,).
    """
    rows = np.arange(len(labels))
    label_logits = logits[rows, labels][:, None]
    margins = label_logits - logits
    margins[rows, labels] = np.inf  # a class does not compete with itself
    sizes = np.abs(logits) + np.abs(label_logits)
    error = FLOAT16_RELATIVE_ERROR * sizes + FLOAT16_ABSOLUTE_ERROR
    # Number of classes that may be, and that certainly are, ahead of the label.
    most_ahead, fewest_ahead = (margins <= error).sum(axis=1), (margins < -error).sum(axis=1)
    accuracies = {
        f"top{k}": tuple(float(100 * (n < k).mean()) for n in (most_ahead, fewest_ahead))
        for k in (1, 5)
    }
    log_probabilities = log_softmax(logits, axis=1)
    slopes = np.exp(log_probabilities)  # derivatives of an image's loss
    slopes[rows, labels] -= 1
    # Twice the first-order error, to cover the change of the slopes.
    margin = 2 * float(
        (np.abs(slopes) * (FLOAT16_RELATIVE_ERROR * np.abs(logits) + FLOAT16_ABSOLUTE_ERROR))
        .sum(axis=1)
        .mean()
    )
    loss = float(-log_probabilities[rows, labels].mean())
    return MeasureBounds(**accuracies, loss=(loss - margin, loss + margin))


def contradictions(record: Record | TeacherCard, bounds: MeasureBounds) -> list[str]:
    """Return the recorded measures that cannot be those of the logits, as phrases.

    Args:
        record: a run's record, or a teacher's card, which has no loss.
        bounds: the ranges of the measures of the stored test logits.
    """
    if isinstance(record, TeacherCard):
        values = {"top1": record.test_top1, "top5": record.test_top5}
    else:
        last = record.epochs[-1]
        values = {"top1": last.test_top1, "top5": last.test_top5, "loss": last.test_loss}
    problems = []
    for name, value in values.items():
        low, high = getattr(bounds, name)
        if not low - SLACK <= value <= high + SLACK:
            bounds_text = f"{low:.4f}" if high - low < SLACK else f"{low:.4f} to {high:.4f}"
            problems.append(
                f"{MEASURE_NAMES[name]} {value:.4f}, but its test logits give {bounds_text}"
            )
    return problems
