"""Tables of the convolutions that use these kernels on a GPU model, with their block sizes.

`skd tune-kernels` measures and writes a table. Imports neither torch nor triton.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from skd.common.choices import Precision
from skd.common.errors import SkdError

Dtype = Precision  # of a convolution
Direction = Literal["forward", "input_gradient", "weight_gradient"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "input_gradient", "weight_gradient")
FOLDER = Path(__file__).with_name("tables")
VERSION = 1  # of the kernels: raise it when the same blocks give other bits
MIN_BLOCK_SIDE = 16  # the smallest block side that Triton can multiply
MAX_CHUNKS = 2**15  # the weight gradients of all chunks are indexed with 32 bits
# The share of cuDNN's time that our kernel must save to be used: a smaller gain may be noise.
MIN_GAIN = 0.03


class KernelsError(SkdError, ValueError):
    """The kernels cannot be used in this way. Says what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _side(size: int) -> int:
    if size < MIN_BLOCK_SIDE or size & (size - 1):
        raise ValueError(f"must be a power of two of at least {MIN_BLOCK_SIDE}, not {size}")
    return size


BlockSide = Annotated[int, AfterValidator(_side)]


class BlockSizes(_Frozen):
    """Block sizes of one kernel, and how it is launched."""

    pixels: BlockSide
    """Pixels per block, a power of two of at least 16: input pixels for the input gradient, else
    output pixels."""
    patch: BlockSide
    """Elements (row, column, channel) of a 3x3 patch per block, a power of two of at least 16."""
    chunks: int = Field(1, ge=1, le=MAX_CHUNKS)
    """Parts in which the pixels are summed, at most. Used by the weight gradient only."""
    warps: PositiveInt = 4
    stages: PositiveInt = 1
    """Pipeline stages of the loads. With 1, the loop over the patch is unrolled instead."""

    def as_ints(self) -> tuple[int, ...]:
        """Return the blocks as the operator `skd::conv3x3` expects them."""
        return self.pixels, self.patch, self.chunks, self.warps, self.stages

    @classmethod
    def from_ints(cls, ints: Sequence[int]) -> Self:
        """Return the blocks with these integers: the inverse of `as_ints`.

        Raises:
            ValueError: there are not five integers, or one is not supported.
        """
        if len(ints) != len(cls.model_fields):
            raise ValueError(f"expected five block sizes, got {list(ints)}")
        return cls(**dict(zip(cls.model_fields, ints, strict=True)))


class ConvShape(_Frozen):
    """The shape of a 3x3 convolution with padding 1; height and width are the input's."""

    batch: PositiveInt
    in_channels: PositiveInt
    out_channels: PositiveInt
    height: PositiveInt
    width: PositiveInt
    stride: Literal[1, 2]


class TunedConv(_Frozen):
    """The fastest blocks found for one direction of a convolution, with our time and cuDNN's."""

    dtype: Dtype
    direction: Direction
    shape: ConvShape
    blocks: BlockSizes
    microseconds: PositiveFloat
    cudnn_microseconds: PositiveFloat

    @property
    def is_faster(self) -> bool:
        """Whether our kernel was measured faster than cuDNN, by more than `MIN_GAIN`."""
        return self.microseconds < (1 - MIN_GAIN) * self.cudnn_microseconds


class ConvBlocks(NamedTuple):
    """Blocks of the three directions of a convolution; empty for cuDNN."""

    forward: tuple[int, ...] = ()
    input_gradient: tuple[int, ...] = ()
    weight_gradient: tuple[int, ...] = ()


class ConvInput(NamedTuple):
    """The properties of a layer's input that select its blocks."""

    dtype: str
    batch: int
    height: int
    width: int


class KernelTable(_Frozen):
    """The measurements of one GPU model."""

    gpu: str
    torch: str
    triton: str
    entries: tuple[TunedConv, ...]

    @property
    def name(self) -> str:
        """Slug of the GPU model and 8 hex digits of a digest of the choices, without the times.

        Entries that are not used are left out: their blocks have no effect.
        """
        chosen = [
            entry.model_dump(include={"dtype", "direction", "shape", "blocks"})
            for entry in self.entries
            if entry.is_faster
        ]
        lines = sorted(json.dumps(choice, sort_keys=True) for choice in chosen)
        digest = hashlib.sha256("\n".join([str(VERSION), *lines]).encode()).hexdigest()
        return f"{gpu_slug(self.gpu)}-{digest[:8]}"

    def blocks_by_input(
        self, in_channels: int, out_channels: int, stride: int
    ) -> Mapping[ConvInput, ConvBlocks]:
        """Return the blocks of a layer. For inputs without blocks, cuDNN computes everything."""
        layer = (in_channels, out_channels, stride)
        by_input: dict[ConvInput, ConvBlocks] = {}
        for entry in self.entries:
            shape = entry.shape
            if entry.is_faster and (shape.in_channels, shape.out_channels, shape.stride) == layer:
                key = ConvInput(entry.dtype, shape.batch, shape.height, shape.width)
                blocks = by_input.get(key, ConvBlocks())
                by_input[key] = blocks._replace(**{entry.direction: entry.blocks.as_ints()})
        return by_input


def gpu_slug(gpu_name: str) -> str:
    """Return a GPU model's name for file names: "NVIDIA H200" becomes nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-")


def has_triton() -> bool:
    """Whether triton is installed. Does not import it."""
    return importlib.util.find_spec("triton") is not None


def require_triton() -> None:
    """Raise a KernelsError if triton is not installed."""
    if not has_triton():
        raise KernelsError(
            "the 3x3 kernels need triton, which is not installed: install a CUDA build of torch, "
            "or train without the kernels"
        )


def find_table(gpu_name: str, folder: Path = FOLDER) -> KernelTable | None:
    """Return the table of a GPU model, or ``None`` without a table or without triton.

    Raises:
        KernelsError: the table cannot be read.
    """
    path = folder / f"{gpu_slug(gpu_name)}.yaml"
    return read_table(path) if path.is_file() and has_triton() else None


def load_table(name: str, folder: Path = FOLDER) -> KernelTable:
    """Return the table whose `KernelTable.name` is `name`.

    Raises:
        KernelsError: there is no such table, or triton is not installed.
    """
    require_triton()
    tables = {table.name: table for table in map(read_table, sorted(folder.glob("*.yaml")))}
    if name not in tables:
        raise KernelsError(
            f"there is no table of kernels '{name}'; available: {', '.join(tables) or 'none'}. A "
            "run continues with the table that it started with: put that table's file back into "
            f"{folder}, or remove the run's folder to start the run again"
        )
    return tables[name]


def read_table(path: Path) -> KernelTable:
    """Read a table's file.

    Raises:
        KernelsError: it is not a table.
    """
    try:
        return KernelTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise KernelsError(
            f"{path} is not a table of kernels: {error}; write a new one by skd tune-kernels"
        ) from error
