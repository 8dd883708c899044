"""The command `skd bench-loader`. Torch is imported once it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import typer

from benchmarks.arithmetic import alternation, paired_ratio
from benchmarks.loader_results import (
    LOADERS,
    OURS,
    REFERENCE,
    LoaderComparison,
    LoaderRow,
    Times,
    loader_notes,
    loader_table,
)
from benchmarks.progress_bar import show_progress
from skd.cli.options import check_writable_option
from skd.common import bounds
from skd.common.files import write_json
from skd.common.terminal import PlainConsole

SAMPLE = 200  # photos whose size is looked up


def bench_loader(
    folder: Annotated[
        Path, typer.Option(help="photos in a folder a class, such as SKD_DATA/imagenet/train")
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            callback=bounds.check_workers,
            help="loader processes of each side (default: one a core)",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="in each of which both sides have a turn, A B, B A, …")
    ] = 6,
    batch: Annotated[int, typer.Option(min=1, help="photos in a batch")] = 64,
    images: Annotated[
        int, typer.Option(min=1, help="photos of each side in a round, at most all there are")
    ] = 1024,
    device: Annotated[str, typer.Option(help="where batches go: auto, cpu or cuda")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=bounds.check_threads,
            help="CPU threads beside the workers (default: torch's)",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            callback=check_writable_option,
            help="JSON file (default: RESULTS/bench-loader/DATE.json)",
        ),
    ] = None,
    results: Annotated[Path, typer.Option(help="where runs, teachers and reports are kept")] = Path(
        "results"
    ),
) -> None:
    """Compare the speed of our loader of photos with torchvision's reference, in turns."""
    from benchmarks.sides.photo_loaders import (
        PhotoRounds,
        measure_throughput,
        skd_loader,
        torchvision_loader,
    )
    from skd.training.execution import choose_execution, environment

    place = choose_execution(device, threads)
    to, known = place.apply(), environment()
    workers = known["cpu_count"] if workers is None else workers
    photos = PhotoRounds(folder, batch, images)
    # The reference's processes are forked, before there are others.
    sides = {
        REFERENCE: torchvision_loader(photos, to, workers),
        OURS: skd_loader(photos, to, workers),
    }
    found: dict[str, list[float]] = {name: [] for name in LOADERS}
    with show_progress(len(LOADERS) * (rounds + 1)) as bar:
        for name, side in sides.items():  # starts the processes, and reads the files once
            bar.tell(f"{name}: warming up")
            measure_throughput(side, 0, photos, to)
        for number, turns in enumerate(alternation(LOADERS, rounds), start=1):
            for name in turns:
                bar.tell(f"round {number}: {name}")
                found[name].append(measure_throughput(sides[name], number, photos, to))
    seconds = {name: [1 / rate for rate in rates] for name, rates in found.items()}
    ratio = paired_ratio(seconds[REFERENCE], seconds[OURS])
    made = LoaderComparison(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=known,
        device=place.device,
        device_name=known["cpu" if place.device == "cpu" else "gpu"] or "unknown",
        folder=folder.name,
        photos=len(photos.paths),
        mean_bytes=round(mean(path.stat().st_size for path in photos.paths[:SAMPLE])),
        median_size=_median_size(photos.paths),
        batch_size=batch,
        images=photos.images,
        workers=workers,
        rows=tuple(LoaderRow(side=name, rounds=tuple(found[name])) for name in LOADERS),
        times=Times(value=ratio.value, low=ratio.low, high=ratio.high),
    )
    stamp = made.made_at.split("+")[0].replace(":", "")
    path = output or results / "bench-loader" / f"{stamp}.json"
    write_json(path, made.model_dump(mode="json"))
    console = PlainConsole()
    console.print(loader_table(made))
    for line in [*loader_notes(made), f"written to {path}"]:
        console.print(line, soft_wrap=True)


def _median_size(paths: list[Path]) -> tuple[int, int]:
    """Return the median width and height of some photos, spread over the folder."""
    from PIL import Image

    sizes = []
    for path in paths[:: max(1, len(paths) // SAMPLE)]:
        with Image.open(path) as image:
            sizes.append(image.size)
    return tuple(round(median(side)) for side in zip(*sizes, strict=True))
