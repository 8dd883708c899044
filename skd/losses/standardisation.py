"""Logit standardisation: z-scores instead of logits (Sun et al., CVPR 2024, 2403.01427).

Unlike SKD's simplifier, it has no parameters and transforms both the student's and the teacher's
logits. Every term that reads logits has it as a setting (`standardise: true`), for raw and for
simplified teacher logits.
"""

import torch
from torch import Tensor

EPSILON = 1e-7  # the authors' code adds it to the deviation


def standardise_logits(logits: Tensor) -> Tensor:
    """Return (z - mean(z)) / (std(z) + 1e-7) over the classes, (B, C).

    Section 4.2 of the paper, whose base temperature is the term's temperature. The deviation is
    that of a sample (C - 1 in the denominator), as in the authors' code. In float32 at least.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    deviation, mean = logits.std(dim=1, keepdim=True), logits.mean(dim=1, keepdim=True)
    return (logits - mean) / (deviation + EPSILON)
