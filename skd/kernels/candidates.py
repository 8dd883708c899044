"""Choose which block sizes to try, and the best of those tried. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

from skd.kernels.tables import BlockSizes, ConvShape, Direction, Dtype

# Largest accepted relative error: norm of the error over the norm of the float64 reference.
MAX_ERRORS: dict[Dtype, float] = {"float32": 5e-3, "bfloat16": 2e-2}
FEWEST_BLOCKS = 16  # of pixels: fewer leave most of a GPU idle
# Programs of the weight gradient: fewer leave it idle, more have too many parts to add.
PROGRAMS = (64, 1536)


class CandidateTiming(NamedTuple):
    """Measurements of one candidate."""

    blocks: BlockSizes
    error: float
    microseconds: float


def candidates(direction: Direction, shape: ConvShape) -> tuple[BlockSizes, ...]:
    """Return the block sizes to try for one of a convolution's kernels; there is always one."""
    if direction == "weight_gradient":
        return _of_weight_gradient(shape)
    forward = direction == "forward"
    pixels = _pixels(shape, shape.stride if forward else 1)
    sizes = [p for p in (128, 64, 32, 256) if p * FEWEST_BLOCKS <= pixels] or [32]
    patches = _patches(shape.in_channels if forward else shape.out_channels)
    return tuple(
        BlockSizes(pixels=p, patch=patch, warps=warps, stages=stages)
        for warps, stages, patch, p in product((4, 8), (1, 3), patches, sizes)
        if warps == 4 or p >= 128  # eight warps need at least 128 rows
    )


def _of_weight_gradient(shape: ConvShape) -> tuple[BlockSizes, ...]:
    pixels = _pixels(shape, shape.stride)
    columns = 9 * shape.in_channels
    found = []
    # The number of chunks is no compile-time constant, so the first pass compiles all kernels.
    for chunks, stages, patch, p in product(
        (128, 64, 256, 32, 512, 16), (3, 2), (64, 32, 128), (64, 32, 128)
    ):
        programs = chunks * -(-columns // patch)
        whole = patch < 2 * columns and PROGRAMS[0] <= programs <= PROGRAMS[1]
        if whole and chunks * p <= pixels:
            found.append(BlockSizes(pixels=p, patch=patch, chunks=chunks, stages=stages))
    return tuple(found) or (BlockSizes(pixels=32, patch=32, chunks=16, stages=2),)


def _pixels(shape: ConvShape, stride: int) -> int:
    height, width = (-(-size // stride) for size in (shape.height, shape.width))
    return shape.batch * height * width


def _patches(channels: int) -> tuple[int, ...]:
    """Return block sizes along the patch: about the channels of a tap, half or twice as many."""
    tap = 1 << (channels - 1).bit_length()
    return tuple(p for p in (tap, 2 * tap, tap // 2) if 16 <= p <= 64) or (32,)


def find_fastest(
    candidates: Sequence[BlockSizes],
    error_of: Callable[[BlockSizes], float],
    microseconds_of: Callable[[BlockSizes], float],
    deadline: float,
    *,
    max_error: float,
    workers: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> CandidateTiming | None:
    """Return the fastest candidate that computes right, or none.

    Args:
        candidates: candidates. The first is tried even if no time is left.
        error_of: compiles and runs a candidate and returns its relative error. A candidate for
            which it raises is skipped, unless the device itself has failed.
        microseconds_of: measures a candidate that has run. Called for one candidate at a time.
        deadline: time of `clock` after which no further candidate is compiled.
        max_error: largest accepted error.
        workers: threads that call `error_of`; it mostly waits for the compiler.
        clock: returns the time, in seconds.
    """

    def checked(numbered: tuple[int, BlockSizes]) -> float | None:
        number, blocks = numbered
        if number and clock() > deadline:
            return None
        return _or_none(error_of, blocks)

    with ThreadPoolExecutor(workers) as pool:
        errors = list(pool.map(checked, enumerate(candidates)))
    trials = []
    for blocks, error in zip(candidates, errors, strict=True):
        if error is not None and error <= max_error:  # NaN is not
            microseconds = _or_none(microseconds_of, blocks)
            if microseconds is not None:
                trials.append(CandidateTiming(blocks, error, microseconds))
    return fastest(trials)


def measure_alternately(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[float, float]:
    """Return the least of each of two measurements, which are made alternately.

    The time of the fastest of many candidates is one that chance favoured: it cannot be compared
    with another measured once. These two are measured equally often, and clocks or temperatures
    that change affect both.
    """
    pairs = [(first(), second()) for _ in range(rounds)]
    return min(one for one, _ in pairs), min(other for _, other in pairs)


def fastest(trials: Iterable[CandidateTiming]) -> CandidateTiming | None:
    """Return the trial that took the least time, of equal ones the first, or none."""
    return min(trials, key=lambda trial: trial.microseconds, default=None)


def _or_none(measure: Callable[[BlockSizes], float], blocks: BlockSizes) -> float | None:
    try:
        return measure(blocks)
    except Exception as error:
        # Compilers and launches raise errors of many types. After an error of the device itself,
        # everything that follows fails too.
        if type(error).__name__ == "AcceleratorError":
            raise
        return None
