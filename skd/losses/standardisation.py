"""Logit standardisation: z-scores in place of logits (Sun et al., CVPR 2024, 2403.01427).

A transformation of logits like SKD's, but of both sides and without parameters: any term that
reads logits takes it (`standardise: true`), on raw and on simplified teacher logits.
"""

import torch
from torch import Tensor

EPSILON = 1e-7  # the authors' code adds it to the deviation


def standardise_logits(logits: Tensor) -> Tensor:
    """Return (z - mean(z)) / (std(z) + 1e-7) over the classes, (B, C).

    Section 4.2 without its base temperature, which is the term's own. The deviation is the
    sample's (C - 1 in the denominator), as in the authors' code. In float32 at least.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    deviation, mean = logits.std(dim=1, keepdim=True), logits.mean(dim=1, keepdim=True)
    return (logits - mean) / (deviation + EPSILON)
