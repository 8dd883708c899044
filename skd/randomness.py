"""All randomness, as pure functions of (seed, purpose, epoch).

Nothing draws from a global generator, so seeds are paired across methods, a resumed run draws what
the uninterrupted one would have drawn, and the views of an epoch are the same on every device.
The numbers come from NumPy's Philox bit generator, whose raw stream does not change between
versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator


def derive_seed(seed: int, purpose: str, epoch: int = 0) -> int:
    """Return a 64-bit seed for one purpose: equal inputs, equal seed; else unrelated ones."""
    key = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(key[:8], "little")


def random_words(seed: int, purpose: str, epoch: int, count: int) -> np.ndarray:
    """Return independent uniform 64-bit words, (count,) uint64."""
    return np.random.Philox(key=derive_seed(seed, purpose, epoch)).random_raw(count)


_SEEDING = threading.Lock()  # the generator that `seeded` borrows is the process's


@contextlib.contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's CPU generator within the block, for code that draws from it (initial weights).

    The global generator is as before afterwards. Threads take turns.
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which notes a stack trace for each GPU: milliseconds.
        torch.default_generator.manual_seed(derive_seed(seed, purpose) >> 1)
        yield


class Draws:
    """What one training step may draw from: a pure function of (seed, epoch, step, purpose).

    A run that is resumed draws what the uninterrupted one would have drawn, and what one purpose
    draws does not depend on the others'. CPU and GPU draw different numbers.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.device = seed, device
        self.epoch, self.step = 1, 0
        self._generators: dict[str, Generator] = {}

    @property
    def generators(self) -> tuple[Generator, ...]:
        """Those that steps have asked for."""
        return tuple(self._generators.values())

    def set_step(self, epoch: int, step: int) -> Draws:
        """Go to a step (0-based) of an epoch (1-based), and return itself."""
        self.epoch, self.step = epoch, step
        for purpose in self._generators:
            self._seed(purpose)
        return self

    def generator(self, purpose: str) -> Generator:
        """Return the generator on the device of this step's stream for the purpose.

        A step that is recorded as a CUDA graph must not seed: `go_to` does that beforehand.
        """
        if purpose not in self._generators:
            self._generators[purpose] = Generator(self.device)
            self._seed(purpose)
        return self._generators[purpose]

    def _seed(self, purpose: str) -> None:
        seed = derive_seed(self.seed, f"{purpose}, step {self.step}", self.epoch)
        self._generators[purpose].manual_seed(seed >> 1)
