"""All randomness, as pure functions of (seed, purpose, epoch).

Nothing draws from a global generator. So runs of one seed are paired across methods, a resumed run
draws the same numbers as an uninterrupted one, and an epoch has the same views on every device. The
numbers come from NumPy's Philox bit generator, whose raw stream is the same in all versions.
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
    """Return a 64-bit seed for one purpose; different inputs give unrelated seeds."""
    key = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(key[:8], "little")


def random_words(seed: int, purpose: str, epoch: int, count: int) -> np.ndarray:
    """Return independent uniform 64-bit words, (count,) uint64."""
    return np.random.Philox(key=derive_seed(seed, purpose, epoch)).random_raw(count)


def expand_words(words: np.ndarray, count: int) -> np.ndarray:
    """Return further random words for each word, (N, count) uint64: a pure function of the word.

    SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) with the word as its seed.

    Args:
        words: (N,) uint64.
        count: words for each.
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = words[:, None] + steps  # modulo 2⁶⁴
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def uniforms(words: np.ndarray) -> np.ndarray:
    """Return words as numbers in [0, 1) with 53 bits, float64."""
    return (words >> np.uint64(11)) * 2.0**-53


_SEEDING = threading.Lock()  # `seeded` uses the generator of the whole process


@contextlib.contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's CPU generator within the context, for code that draws from it (initial weights).

    Restores the generator's state afterwards. Only one thread at a time is in the context.
    """
    with _SEEDING, torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` takes milliseconds: it records a stack trace for each GPU.
        torch.default_generator.manual_seed(derive_seed(seed, purpose) >> 1)
        yield


class Draws:
    """The random generators of one training step, seeded by (seed, epoch, step, purpose).

    A resumed run draws the same numbers as an uninterrupted one, and the draws for one purpose do
    not depend on those for another. CPU and GPU draw different numbers.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.device = seed, device
        self.epoch, self.step = 1, 0
        self._generators: dict[str, Generator] = {}

    @property
    def generators(self) -> tuple[Generator, ...]:
        """The generators in use."""
        return tuple(self._generators.values())

    def set_step(self, epoch: int, step: int) -> Draws:
        """Set the step (0-based) and epoch (1-based); return self."""
        self.epoch, self.step = epoch, step
        for purpose in self._generators:
            self._seed(purpose)
        return self

    def generator(self, purpose: str) -> Generator:
        """Return this step's generator for a purpose, on the device.

        Seeding is not allowed while a CUDA graph is recorded: `set_step` seeds the generators
        before the step.
        """
        if purpose not in self._generators:
            self._generators[purpose] = Generator(self.device)
            self._seed(purpose)
        return self._generators[purpose]

    def _seed(self, purpose: str) -> None:
        seed = derive_seed(self.seed, f"{purpose}, step {self.step}", self.epoch)
        self._generators[purpose].manual_seed(seed >> 1)
