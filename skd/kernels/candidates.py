"""Choose the block sizes to try, and the fastest of them. Does not import torch."""

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
# Bounds of the weight gradient's programs: fewer leave a GPU idle, more give too many parts to add.
PROGRAMS = (64, 1536)


class CandidateTiming(NamedTuple):
    """Measurements of one candidate."""

    blocks: BlockSizes
    error: float
    microseconds: float


def candidates(direction: Direction, shape: ConvShape) -> tuple[BlockSizes, ...]:
    """Return the block sizes to try for one of a convolution's kernels, at least one."""
    if direction == "weight_gradient":
        return _weight_gradient_candidates(shape)
    forward = direction == "forward"
    pixels = _pixels(shape, shape.stride if forward else 1)
    sizes = [p for p in (128, 64, 32, 256) if p * FEWEST_BLOCKS <= pixels] or [32]
    patches = _patches(shape.in_channels if forward else shape.out_channels)
    return tuple(
        BlockSizes(pixels=p, patch=patch, warps=warps, stages=stages)
        for warps, stages, patch, p in product((4, 8), (1, 3), patches, sizes)
        if warps == 4 or p >= 128  # eight warps need at least 128 rows
    )


def _weight_gradient_candidates(shape: ConvShape) -> tuple[BlockSizes, ...]:
    pixels = _pixels(shape, shape.stride)
    columns = 9 * shape.in_channels
    candidates = []
    # The number of chunks is not a compile-time constant: its first value compiles all kernels.
    for chunks, stages, patch, p in product(
        (128, 64, 256, 32, 512, 16), (3, 2), (64, 32, 128), (64, 32, 128)
    ):
        programs = chunks * -(-columns // patch)
        within_bounds = patch < 2 * columns and PROGRAMS[0] <= programs <= PROGRAMS[1]
        if within_bounds and chunks * p <= pixels:
            candidates.append(BlockSizes(pixels=p, patch=patch, chunks=chunks, stages=stages))
    return tuple(candidates) or (BlockSizes(pixels=32, patch=32, chunks=16, stages=2),)


def _pixels(shape: ConvShape, stride: int) -> int:
    height, width = (-(-size // stride) for size in (shape.height, shape.width))
    return shape.batch * height * width


def _patches(channels: int) -> tuple[int, ...]:
    """Return block sizes along the patch: about the channels of a tap, half and twice as many."""
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
    """Return the fastest candidate with an accepted error, or ``None`` if there is none.

    Args:
        candidates: block sizes. The first is tried even if no time is left.
        error_of: compiles and runs a candidate and returns its relative error. A candidate for
            which it raises is skipped, unless the device itself has failed.
        microseconds_of: measures a candidate that has run. Called for one candidate at a time.
        deadline: time of `clock` after which no further candidate is compiled.
        max_error: largest accepted error.
        workers: threads that call `error_of`, which mostly waits for the compiler.
        clock: returns the time, in seconds.
    """

    def check(numbered: tuple[int, BlockSizes]) -> float | None:
        number, blocks = numbered
        if number and clock() > deadline:
            return None
        return _measure_or_none(error_of, blocks)

    with ThreadPoolExecutor(workers) as pool:
        errors = list(pool.map(check, enumerate(candidates)))
    timings = []
    for blocks, error in zip(candidates, errors, strict=True):
        if error is not None and error <= max_error:  # false for NaN
            microseconds = _measure_or_none(microseconds_of, blocks)
            if microseconds is not None:
                timings.append(CandidateTiming(blocks, error, microseconds))
    return fastest(timings)


def measure_alternately(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[float, float]:
    """Return the minimum of each of two measurements that are repeated alternately.

    The time of the fastest of many candidates is biased by its selection, so it cannot be compared
    with a single time of cuDNN. Here both are measured equally often, and changing clocks or
    temperatures affect both.
    """
    pairs = [(first(), second()) for _ in range(rounds)]
    return min(a for a, _ in pairs), min(b for _, b in pairs)


def fastest(timings: Iterable[CandidateTiming]) -> CandidateTiming | None:
    """Return the (first) candidate with the least time, or ``None`` if there is none."""
    return min(timings, key=lambda timing: timing.microseconds, default=None)


def _measure_or_none(measure: Callable[[BlockSizes], float], blocks: BlockSizes) -> float | None:
    try:
        return measure(blocks)
    except Exception as error:
        # Compilers and launches raise errors of many types. After an error of the device itself,
        # all later calls fail too.
        if type(error).__name__ == "AcceleratorError":
            raise
        return None
