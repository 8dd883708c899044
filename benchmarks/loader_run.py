"""One comparison of the photo loaders: ours and torchvision's take turns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median

import torch
from PIL import Image

from benchmarks.arithmetic import alternation, paired_ratio
from benchmarks.loader_results import (
    LOADERS,
    OURS,
    REFERENCE,
    LoaderComparison,
    LoaderRow,
)
from benchmarks.machine import machine
from benchmarks.progress_bar import show_progress
from benchmarks.sides.photo_loaders import (
    PhotoRounds,
    RoundLoader,
    measure_throughput,
    skd_loader,
    torchvision_loader,
)
from skd.training.execution import Execution

SAMPLE = 200  # number of photos whose size is read


def compare_loaders(
    photos: PhotoRounds, execution: Execution, workers: int | None, rounds: int
) -> LoaderComparison:
    """Measure the throughput of both loaders.

    Args:
        photos: the photos of each round.
        execution: the device and threads.
        workers: the number of processes of each loader; ``None``: one per core.
        rounds: the number of rounds, in each of which both loaders have a turn.
    """
    device, where = execution.configure_process(), machine(execution)
    workers = where["environment"]["cpu_count"] if workers is None else workers
    # The reference forks its processes, so it comes first: while there are no others.
    loaders = {
        REFERENCE: torchvision_loader(photos, device, workers),
        OURS: skd_loader(photos, device, workers),
    }
    throughputs = _take_turns(loaders, rounds, photos, device)
    seconds = {name: [1 / rate for rate in rates] for name, rates in throughputs.items()}
    ratio = paired_ratio(seconds[REFERENCE], seconds[OURS])
    return LoaderComparison(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **where,
        folder=photos.folder.name,
        photos=len(photos.paths),
        mean_bytes=round(mean(path.stat().st_size for path in photos.paths[:SAMPLE])),
        median_size=_median_size(photos.paths),
        batch_size=photos.batch_size,
        images=photos.images,
        workers=workers,
        rows=tuple(LoaderRow(side=name, rounds=tuple(throughputs[name])) for name in LOADERS),
        times=ratio,
    )


def _take_turns(
    loaders: Mapping[str, RoundLoader], rounds: int, photos: PhotoRounds, device: torch.device
) -> dict[str, list[float]]:
    """Return each loader's images per second in each round."""
    throughputs: dict[str, list[float]] = {name: [] for name in LOADERS}
    with show_progress(len(LOADERS) * (rounds + 1)) as progress:
        for name, loader in loaders.items():  # starts the processes, and reads the files once
            progress.update(f"{name}: warming up")
            measure_throughput(loader, 0, photos, device)
        for number, order in enumerate(alternation(LOADERS, rounds), start=1):
            for name in order:
                progress.update(f"round {number}: {name}")
                throughputs[name].append(measure_throughput(loaders[name], number, photos, device))
    return throughputs


def _median_size(paths: list[Path]) -> tuple[int, int]:
    """Return the median width and height of some photos, spread over the folder."""
    sizes = []
    for path in paths[:: max(1, len(paths) // SAMPLE)]:
        with Image.open(path) as image:
            sizes.append(image.size)
    return tuple(round(median(side)) for side in zip(*sizes, strict=True))
