"""The command `skd bench-loader`. Torch is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.loader_results import loader_notes, loader_table
from skd.cli.options import (
    DEFAULT_RESULTS,
    MACHINE,
    OUTPUT,
    DeviceOption,
    ResultsOption,
    ThreadsOption,
    check_writable_option,
)
from skd.common import bounds
from skd.common.files import write_json
from skd.common.terminal import PlainConsole

OutputOption = Annotated[
    Path | None,
    typer.Option(
        callback=check_writable_option,
        metavar="FILE",
        rich_help_panel=OUTPUT,
        help="write the result to this JSON file (default: RESULTS/bench-loader/DATE.json)",
    ),
]


def bench_loader(
    folder: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="folder with a subfolder of photos for each class, such as "
            "SKD_DATA/imagenet/train",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            callback=bounds.check_workers,
            metavar="N",
            rich_help_panel=MACHINE,
            help="number of processes of each loader (default: one per core)",
        ),
    ] = None,
    rounds: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="number of rounds; each loader has one turn per round, in the order A B, B A, …",
        ),
    ] = 6,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="number of photos in a batch")
    ] = 64,
    images: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="number of photos per loader and round, if there are enough"
        ),
    ] = 1024,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    output: OutputOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Compare the speed of our photo loader with that of torchvision's reference, in turns."""
    from benchmarks.loader_run import compare_loaders
    from benchmarks.sides.photo_loaders import PhotoRounds
    from skd.training.execution import choose_execution

    execution = choose_execution(device, threads)
    comparison = compare_loaders(PhotoRounds(folder, batch, images), execution, workers, rounds)
    path = output or _default_path(results, comparison.made_at)
    write_json(path, comparison.model_dump(mode="json"))
    console = PlainConsole()
    console.print(loader_table(comparison))
    for line in [*loader_notes(comparison), f"written to {path}"]:
        console.print(line, soft_wrap=True)


def _default_path(results: Path, made_at: str) -> Path:
    stamp = made_at.split("+")[0].replace(":", "")
    return results / "bench-loader" / f"{stamp}.json"
