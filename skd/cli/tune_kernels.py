"""The command `skd tune-kernels`. Torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from skd.cli.options import PrecisionChoice
from skd.common.choices import Precision
from skd.kernels.tables import FOLDER, KernelsError, KernelTable

if TYPE_CHECKING:
    from skd.kernels.tables import ConvShape

# The narrow students of the study cifar100: all of their convolutions have few channels.
NETWORKS = ("resnet8", "resnet20", "resnet32")


def tune_kernels(
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="a network whose convolutions are measured; may be repeated (default: "
            f"{', '.join(NETWORKS)})",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="number of images of a training step")
    ] = 64,
    image_size: Annotated[
        int, typer.Option(min=1, metavar="PIXELS", help="height and width of an image, in pixels")
    ] = 32,
    precision: Annotated[
        list[PrecisionChoice] | None,
        typer.Option(help="data type of the convolutions; may be repeated (default: both)"),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, metavar="MINUTES", help="approximate duration in minutes")
    ] = 10.0,
    output: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="folder for the table (default: where training looks for it)",
            show_default=False,
        ),
    ] = FOLDER,
) -> None:
    """Measure our 3x3 convolutions against cuDNN's on this GPU, and write which are faster.

    The command replaces an existing table of this GPU model, so name all networks in one call. No
    other program should use the GPU during the measurement.
    """
    import torch

    if not torch.cuda.is_available():
        raise KernelsError(
            "the kernels are measured on a CUDA GPU, and torch finds none here; run this command "
            "on the machine that trains"
        )
    from skd.kernels.tuning import require_writable, write_table

    require_writable(output)  # before the measurement
    shapes = _shapes(network or NETWORKS, image_size, batch)
    if not shapes:
        raise KernelsError("none of these networks has a convolution that the kernels can compute")
    kinds = [choice.value for choice in precision or PrecisionChoice]
    table = _measure(shapes, kinds, 60 * minutes)
    path = write_table(table, output)
    console = Console(highlight=False)
    console.print(results_table(table))
    faster = sum(entry.is_faster for entry in table.entries)
    for line in (
        f"{faster} of {len(table.entries)} use our kernels, the others cuDNN",
        f"table {table.name}, written to {path}",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _measure(
    shapes: Sequence[ConvShape], precisions: Sequence[Precision], seconds: float
) -> KernelTable:
    """Measure the kernels on some convolutions; show the progress on standard error."""
    from skd.kernels.tuning import tune

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def show(done: int, total: int, text: str) -> None:
            progress.update(task, completed=done, total=total, description=text)

        return tune(shapes, precisions, "cuda", seconds, show)


def _shapes(networks: Sequence[str], image_size: int, batch: int) -> list[ConvShape]:
    """Return the shapes of the convolutions of some networks, each once."""
    import torch

    from skd.kernels.tuning import conv_shapes
    from skd.models import build_model

    shapes: dict[ConvShape, None] = {}
    with torch.device("meta"):
        for name in networks:
            shapes |= dict.fromkeys(conv_shapes(build_model(name), image_size, batch))
    return list(shapes)


def results_table(table: KernelTable) -> RichTable:
    """Return the measurements as a table for a terminal."""
    title = f"3x3 convolutions on {table.gpu}, torch {table.torch}, triton {table.triton}"
    rich_table = RichTable(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for name in ("channels", "size", "stride", "batch", "type", "direction"):
        rich_table.add_column(name)
    for name in ("cuDNN µs", "ours µs", "faster"):
        rich_table.add_column(name, justify="right")
    rich_table.add_column("pixels x patch, chunks, warps, stages")
    for entry in table.entries:
        shape, blocks = entry.shape, entry.blocks
        rich_table.add_row(
            f"{shape.in_channels}→{shape.out_channels}",
            f"{shape.height}x{shape.width}",
            str(shape.stride),
            str(shape.batch),
            entry.dtype,
            entry.direction.replace("_", " "),
            f"{entry.cudnn_microseconds:.1f}",
            f"{entry.microseconds:.1f}",
            f"{entry.cudnn_microseconds / entry.microseconds:.2f}x" if entry.is_faster else "cuDNN",
            f"{blocks.pixels} x {blocks.patch}, {blocks.chunks}, {blocks.warps}, {blocks.stages}",
        )
    return rich_table
