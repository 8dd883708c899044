"""The peak performance of the hardware, measured with matrix products."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.results import BenchError

# Small sizes too: on a shared machine, a short product is more likely to find all cores free.
MATRIX_SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
PEAK_MEASURE_SECONDS = 0.5  # for each size
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def measure_peak(
    case: BenchmarkCase | None, options: SideOptions, precision: str = "float32"
) -> dict[str, Any]:
    """Return the most multiply-adds per second of any product of square matrices.

    Args:
        case: ignored.
        options: device and threads.
        precision: one of `DTYPES`.

    Raises:
        BenchError: the precision is unknown.
    """
    if precision not in DTYPES:
        raise BenchError(f"unknown precision '{precision}'; allowed: {', '.join(DTYPES)}")
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    device, sizes = torch.device(options.device), MATRIX_SIZES[options.device]
    rates = {size: size**3 / _fastest(size, device, DTYPES[precision]) for size in sizes}
    best = max(rates, key=rates.__getitem__)
    return {
        "precision": precision,
        "multiply_adds_per_second": rates[best],
        "measured_by": f"the fastest product of two square matrices, which had {best} rows",
    }


def _fastest(size: int, device: torch.device, dtype: torch.dtype) -> float:
    """Return the seconds of the fastest product of matrices of one size."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product, best = a @ b, float("inf")
    end = time.perf_counter() + PEAK_MEASURE_SECONDS
    while time.perf_counter() < end:
        _synchronise(device)
        started = time.perf_counter()
        torch.mm(a, b, out=product)
        _synchronise(device)
        best = min(best, time.perf_counter() - started)
    return best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
