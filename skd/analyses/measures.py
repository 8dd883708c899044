"""Measures of test logits, as functions of NumPy arrays. Does not import torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax

BINS = 15


def logit_measures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return accuracy, likelihood and calibration.

    Args:
        logits: (M, C).
        labels: (M,).

    Returns:
        top1, ece and per_class_top1 in percent, nll in nats, and `reliability`. The accuracy of a
        class without test images is ``None``.
    """
    hits = logits.argmax(axis=1) == labels
    log_probabilities = log_softmax(logits, axis=1)
    probabilities = np.exp(log_probabilities)
    per_class = [
        float(hits[labels == c].mean() * 100) if (labels == c).any() else None
        for c in range(logits.shape[1])
    ]
    return {
        "top1": float(100 * hits.mean()),
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "per_class_top1": per_class,
        "reliability": reliability(probabilities, labels),
    }


def teacher_agreement(logits: np.ndarray, teacher_logits: np.ndarray) -> dict[str, float]:
    """Compare a student's logits (M, C) with its teacher's, (M, C).

    Returns:
        agreement: the share of images with the same prediction, in percent.
        teacher_kl: the mean of KL(softmax(teacher) ‖ softmax(student)) at T = 1, in nats.
    """
    log_p, log_q = log_softmax(teacher_logits, axis=1), log_softmax(logits, axis=1)
    return {
        "agreement": float(100 * (logits.argmax(axis=1) == teacher_logits.argmax(axis=1)).mean()),
        "teacher_kl": float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()),
    }


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error in percent (Guo et al. 2017, equation 3).

    The mean over images of |accuracy - confidence| of their bin, with 15 bins of equal width.
    """
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    sums = np.bincount(_bins(confidence), weights=gaps, minlength=BINS)
    return float(100 * np.abs(sums).sum() / len(labels))


def reliability(
    probabilities: np.ndarray, labels: np.ndarray
) -> list[tuple[int, float | None, float | None]]:
    """Return the reliability diagram of probabilities (M, C) (Guo et al. 2017, section 2).

    Returns:
        For each of the 15 bins: number of images, mean confidence and accuracy in percent; the last
        two are ``None`` for an empty bin.
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    bins = _bins(confidence)
    diagram: list[tuple[int, float | None, float | None]] = []
    for b in range(BINS):
        inside = bins == b
        count = int(inside.sum())
        if not count:
            diagram.append((0, None, None))
            continue
        mean_confidence, accuracy = confidence[inside].mean(), hits[inside].mean()
        diagram.append((count, float(100 * mean_confidence), float(100 * accuracy)))
    return diagram


def class_correlation(logits: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation between classes' logits over test images, (C, C).

    CRD compares the teacher's and the student's (Tian et al. 2020, section 4: their difference).
    The correlations of a class with constant logits are 0, also with itself.

    Args:
        logits: (M, C).
    """
    centred = logits - logits.mean(axis=0)
    centred[:, np.ptp(logits, axis=0) == 0] = 0  # exactly 0 even if the mean is rounded
    norms = np.sqrt((centred**2).sum(axis=0))
    scaled = centred / np.where(norms == 0, 1, norms)
    return np.clip(scaled.T @ scaled, -1, 1)


def _bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence; bins include their upper end."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
