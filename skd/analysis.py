"""What finished runs tell beyond accuracy, from their stored test logits alone; no training.

Imports no torch: logits are read as NumPy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import log_softmax, softmax

from skd.store import Entry, Store
from skd.study import Expansion

BINS = 15


def analyse(expansion: Expansion, store: Store, labels: np.ndarray) -> dict[str, Any]:
    """Return the measures of every finished run of a study, by run.

    Runs whose logits cannot be read, or are not of these test images, are named as skipped.

    Args:
        expansion: the study.
        store: where its runs are.
        labels: of the test images, (M,).
    """
    teachers = {node.name: _logits(store.teacher(node.id)) for node in expansion.teachers}
    runs: dict[str, Any] = {}
    skipped: list[str] = []
    for cell in expansion.cells:
        for identity in cell.runs.values():
            entry = store.run(identity)
            if not entry.record_path.is_file():
                continue
            logits = _logits(entry)
            if logits is None or len(logits) != len(labels):
                skipped.append(identity)
                continue
            teacher = teachers[cell.teacher] if cell.teacher else None
            runs[identity] = measures(logits, labels, teacher)
    return {"study": expansion.study, "runs": runs, "skipped": skipped}


def measures(
    logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None
) -> dict[str, Any]:
    """Return accuracy, likelihood, calibration, and agreement with the teacher.

    Args:
        logits: (M, C).
        labels: (M,).
        teacher_logits: (M, C), or none where there is no teacher.

    Returns:
        top1, ece, agreement and per_class_top1 in percent; nll in nats; agreement is none without
        a teacher. A class without test images has no accuracy: none.
    """
    hits = logits.argmax(axis=1) == labels
    per_class = [
        hits[labels == c].mean() * 100 if (labels == c).any() else None
        for c in range(logits.shape[1])
    ]
    agreement = None
    if teacher_logits is not None:
        agreement = float(100 * (logits.argmax(axis=1) == teacher_logits.argmax(axis=1)).mean())
    return {
        "top1": float(100 * hits.mean()),
        "nll": float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()),
        "ece": expected_calibration_error(softmax(logits, axis=1), labels),
        "agreement": agreement,
        "per_class_top1": per_class,
    }


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error in percent (Guo et al. 2017, equation 3).

    The mean over images of |accuracy - confidence| of their bin, 15 bins of equal width.
    """
    confidence = probabilities.max(axis=1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return float(100 * np.abs(np.bincount(bins, weights=gaps, minlength=BINS)).sum() / len(labels))


def _logits(entry: Entry) -> np.ndarray | None:
    try:
        return load_file(entry.logits_path)["logits"].astype(np.float64)
    except (OSError, SafetensorError, KeyError):
        return None
