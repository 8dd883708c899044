"""What a process can read of its machine: memory, device errors, and the environment of a run."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import skd
from skd.code.sources import code_version
from skd.common.gpu_state import gpu_state
from skd.training.execution import gpu_model


def reset_peak_memory(device: torch.device) -> None:
    """Measure the peak from now on, as a process may train several runs."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # then the peak is that of all runs so far
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of the device's allocator, or of the process on a CPU, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_device_error(error: BaseException) -> bool:
    """Return whether the GPU failed. CUDA then refuses all further work of the process."""
    return isinstance(error, torch.AcceleratorError)


@cache
def environment() -> dict[str, Any]:
    """Return versions, hardware and code, on which numbers may depend."""
    return {
        "skd": skd.__version__,
        **code_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),  # importing it takes seconds
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "gpu": gpu_model(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "gpu_driver": state.driver if (state := gpu_state()) else None,
        "host": platform.node(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
