"""All randomness, as pure functions of (seed, purpose, epoch).

Nothing draws from a global generator, so seeds are paired across methods, a resumed run draws what
the uninterrupted one would have drawn, and the views of an epoch are the same on every device.
The numbers come from NumPy's Philox bit generator, whose raw stream does not change between
versions.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """Return a 64-bit seed for one purpose: equal inputs, equal seed; else unrelated ones."""
    key = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(key[:8], "little")


def words(seed: int, purpose: str, epoch: int, count: int) -> np.ndarray:
    """Return independent uniform 64-bit words, (count,) uint64."""
    return np.random.Philox(key=derive(seed, purpose, epoch)).random_raw(count)


@contextlib.contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's CPU generator within the block, for code that draws from it (initial weights).

    The global generator is as before afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose) >> 1)
        yield
