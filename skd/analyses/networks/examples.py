"""What a trained simplifier does to single test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from scipy.special import log_softmax, softmax

from skd.analyses.stored_networks import UnusableError
from skd.losses.simplifier import Simplifier, SimplifierSettings
from skd.study.spec import SimplifierSpec

EXAMPLE_COUNT = 4


@dataclass(frozen=True)
class ExampleDistributions:
    """Four test images (fewer of a smaller batch) as teacher, simplifier and student see them.

    Attributes:
        places: of the images in the test set, (E,).
        temperature: T of the simplifier.
        probabilities: by name, (E, C) float32: raw, softmax(z_t); softened, softmax(z_t / T);
            simplified, softmax(z' / T); student, softmax(z_s).
    """

    places: np.ndarray
    temperature: float
    probabilities: dict[str, np.ndarray]


def select_examples(logits: np.ndarray) -> np.ndarray:
    """Return four places spread evenly over the entropy of softmax(logits), (E,).

    The lowest, those a third and two thirds up the ranks, the highest.

    Args:
        logits: (B, C).
    """
    log_probabilities = log_softmax(logits, axis=1)
    entropy = -(np.exp(log_probabilities) * log_probabilities).sum(axis=1)
    ranks = np.linspace(0, len(entropy) - 1, min(EXAMPLE_COUNT, len(entropy))).round().astype(int)
    return np.argsort(entropy, kind="stable")[ranks]


@torch.no_grad()
def simplified_logits(spec: SimplifierSpec, weights: bytes, logits: np.ndarray) -> np.ndarray:
    """Return a stored simplifier's output z' on a batch of teacher logits, (B, C) float32.

    Args:
        spec: the simplifier's settings.
        weights: its state dict as stored.
        logits: (B, C). By default attention runs over the batch: the output for an image depends
            on the images beside it.

    Raises:
        UnusableError: the weights are not this simplifier's.
    """
    settings = SimplifierSettings.restore(spec.settings)
    with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing
        simplifier = Simplifier(settings, logits.shape[1])
    try:
        simplifier.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise UnusableError("its simplifier's weights do not fit its settings") from error
    return simplifier(torch.from_numpy(logits).float()).numpy()


def example_distributions(
    spec: SimplifierSpec, weights: bytes, teacher: np.ndarray, student: np.ndarray
) -> ExampleDistributions:
    """Return what a run's simplifier makes of four images of a batch.

    The batch is the test set's first, as large as a training batch: attention runs over the batch,
    so that these probabilities are the images' in this batch, not the images' alone.

    Args:
        spec: the simplifier's settings.
        weights: its state dict as stored.
        teacher: the raw teacher's stored test logits, of the batch, (B, C).
        student: the student's, (B, C).

    Raises:
        UnusableError: the weights are not this simplifier's, or its output is not finite.
    """
    temperature = float(SimplifierSettings.restore(spec.settings).temperature)
    simplified = simplified_logits(spec, weights, teacher).astype(np.float64)
    if not np.isfinite(simplified).all():
        raise UnusableError("its simplified logits are not finite")
    places = select_examples(teacher)
    logits = {
        "raw": teacher,
        "softened": teacher / temperature,
        "simplified": simplified / temperature,
        "student": student,
    }
    return ExampleDistributions(
        places=places,
        temperature=temperature,
        probabilities={
            name: softmax(values[places], axis=1).astype(np.float32)
            for name, values in logits.items()
        },
    )
