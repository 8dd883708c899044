"""Tables of tuned kernels, and pytest marks for their requirements."""

from pathlib import Path
from typing import Any

import pytest
import torch

from skd.kernels import tables
from skd.kernels.tables import (
    BlockSizes,
    ConvShape,
    KernelTable,
    TunedConv,
)

SHAPE = ConvShape(batch=64, in_channels=16, out_channels=32, height=9, width=7, stride=2)
needs_triton = pytest.mark.skipif(not tables.has_triton(), reason="no triton here")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def entry(**other: Any) -> TunedConv:
    fields = {
        "dtype": "float32",
        "direction": "forward",
        "shape": SHAPE,
        "blocks": BlockSizes(pixels=64, patch=32),
        "microseconds": 5.0,
        "cudnn_microseconds": 9.0,
    }
    return TunedConv(**fields | other)


def table(*entries: TunedConv, **other: str) -> KernelTable:
    return KernelTable(
        **{"gpu": "NVIDIA H200", "torch": "2", "triton": "3"} | other, entries=entries
    )


def read_all(folder: Path) -> list[KernelTable]:
    """Read a folder's tables as training would, by GPU model and by name."""
    read = []
    for path in sorted(folder.glob("*.yaml")):
        read.append(tables.read_table(path))
        assert path.stem == tables.gpu_slug(read[-1].gpu)
        assert read[-1].name.startswith(f"{path.stem}-")
        assert read[-1].entries
    return read
