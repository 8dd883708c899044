"""`skd tune-kernels`: make the table of this machine's GPU. Torch is imported once it runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from skd.kernels.tables import FOLDER, KernelsError, KernelTable

if TYPE_CHECKING:
    from skd.kernels.tables import ConvShape

# The narrow students of the study cifar100: all of their convolutions have few channels.
NETWORKS = ("resnet8", "resnet20", "resnet32")


class Precision(StrEnum):
    """Dtypes that the convolutions are computed in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def tune_kernels(
    network: Annotated[
        list[str] | None,
        typer.Option(help=f"may be repeated (default: {', '.join(NETWORKS)})"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="images of a training step")] = 64,
    image_size: Annotated[int, typer.Option(min=1, help="height and width, in pixels")] = 32,
    precision: Annotated[
        list[Precision] | None, typer.Option(help="may be repeated (default: both)")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="time to spend, roughly")] = 10.0,
    output: Annotated[
        Path, typer.Option(help="folder (default: where training finds it)", show_default=False)
    ] = FOLDER,
) -> None:
    """Measure our 3x3 convolutions against cuDNN's on this GPU, and write which are faster.

    An existing table of this GPU model is replaced, so name all networks at once. Nothing else
    should run on the GPU meanwhile.
    """
    import torch

    if not torch.cuda.is_available():
        raise KernelsError(
            "the kernels are measured on a CUDA GPU, and torch finds none here; start this on the "
            "machine whose GPU is to train"
        )
    from skd.kernels.tuning import require_writable, tune, write_table

    require_writable(output)  # before the minutes are spent
    shapes = _shapes(network or NETWORKS, image_size, batch)
    if not shapes:
        raise KernelsError("none of these networks has a convolution that the kernels compute")
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        table = tune(
            shapes,
            [kind.value for kind in precision or Precision],
            "cuda",
            60 * minutes,
            lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    path = write_table(table, output)
    console = Console(highlight=False)
    console.print(results_table(table))
    used = sum(entry.is_faster for entry in table.entries)
    for line in (
        f"{used} of {len(table.entries)} are ours, the others cuDNN's",
        f"table {table.name}, written to {path}",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _shapes(networks: list[str] | tuple[str, ...], image_size: int, batch: int) -> list[ConvShape]:
    import torch

    from skd.kernels.tuning import conv_shapes
    from skd.models import build_model

    found = {}
    with torch.device("meta"):
        for name in networks:
            found |= dict.fromkeys(conv_shapes(build_model(name), image_size, batch))
    return list(found)


def results_table(table: KernelTable) -> RichTable:
    """Return the measurements as a table for a terminal."""
    title = f"3x3 convolutions on {table.gpu}, torch {table.torch}, triton {table.triton}"
    shown = RichTable(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for name in ("channels", "size", "stride", "batch", "type", "direction"):
        shown.add_column(name)
    for name in ("cuDNN µs", "ours µs", "faster"):
        shown.add_column(name, justify="right")
    shown.add_column("pixels x patch, chunks, warps, stages")
    for entry in table.entries:
        of, blocks = entry.shape, entry.blocks
        shown.add_row(
            f"{of.in_channels}→{of.out_channels}",
            f"{of.height}x{of.width}",
            str(of.stride),
            str(of.batch),
            entry.dtype,
            entry.direction.replace("_", " "),
            f"{entry.cudnn_microseconds:.1f}",
            f"{entry.microseconds:.1f}",
            f"{entry.cudnn_microseconds / entry.microseconds:.2f}x" if entry.is_faster else "cuDNN",
            f"{blocks.pixels} x {blocks.patch}, {blocks.chunks}, {blocks.warps}, {blocks.stages}",
        )
    return shown
