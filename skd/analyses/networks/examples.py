"""The effect of a trained simplifier on single test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from scipy.special import log_softmax, softmax
from torch import Tensor

from skd.analyses.errors import UnusableError
from skd.losses.discovery import transformation_class
from skd.losses.term import TermContext
from skd.models import Outputs
from skd.study.spec import SIMPLIFIER, SimplifierSpec

EXAMPLE_COUNT = 4


@dataclass(frozen=True)
class ExampleDistributions:
    """The probabilities of teacher, simplifier and student on four test images (or fewer).

    Attributes:
        indices: indices of the images in the test set, (E,).
        temperature: T of the simplifier.
        probabilities: by name, (E, C) float32: raw, softmax(z_t); softened, softmax(z_t / T);
            simplified, softmax(z' / T); student, softmax(z_s).
    """

    indices: np.ndarray
    temperature: float
    probabilities: dict[str, np.ndarray]


def select_examples(logits: np.ndarray) -> np.ndarray:
    """Return the indices of four images spread evenly over the entropies of softmax(logits), (E,).

    They have the lowest and the highest entropy, and those at a third and two thirds of the ranks.

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
        weights: its stored state dict.
        logits: (B, C). By default, attention runs over the batch: the output for an image depends
            on the other images.

    Raises:
        UnusableError: the weights are not this simplifier's.
    """
    rule, raw = transformation_class(SIMPLIFIER), torch.from_numpy(logits).float()
    outputs = Outputs(raw, (), (), raw)
    context = TermContext(logits.shape[1], torch.zeros(0, dtype=torch.int64), 0, outputs, outputs)
    with torch.random.fork_rng(devices=[]):  # building a simplifier draws initial weights
        simplifier = rule(rule.Settings.restore(spec.settings), context)
    try:
        simplifier.load_state_dict(_own_tensors(load(weights)))
    except (SafetensorError, RuntimeError) as error:
        raise UnusableError("its simplifier's weights do not fit its settings") from error
    return simplifier.simplify(raw).numpy()


def _own_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the simplifier's tensors; if the file has those of other parts, keys have prefixes."""
    prefix = f"{SIMPLIFIER}."
    own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    return own or tensors


def example_distributions(
    spec: SimplifierSpec, weights: bytes, teacher: np.ndarray, student: np.ndarray
) -> ExampleDistributions:
    """Return the probabilities of teacher, simplifier and student on four images of a batch.

    The batch has the first test images and the size of a training batch. Since attention runs over
    the batch, the simplified probabilities depend on all its images.

    Args:
        spec: the simplifier's settings.
        weights: its stored state dict.
        teacher: the teacher's raw test logits of the batch, (B, C).
        student: the student's test logits of the batch, (B, C).

    Raises:
        UnusableError: the weights are not this simplifier's, or its output is not finite.
    """
    temperature = float(spec.settings["temperature"])
    simplified = simplified_logits(spec, weights, teacher).astype(np.float64)
    if not np.isfinite(simplified).all():
        raise UnusableError("its simplified logits are not finite")
    indices = select_examples(teacher)
    logits = {
        "raw": teacher,
        "softened": teacher / temperature,
        "simplified": simplified / temperature,
        "student": student,
    }
    return ExampleDistributions(
        indices=indices,
        temperature=temperature,
        probabilities={
            name: softmax(values[indices], axis=1).astype(np.float32)
            for name, values in logits.items()
        },
    )
