"""Measured times and memory of finished runs and teachers of the store. Imports no torch.

Records are large and do not change, so ``results/timings.json`` caches what is read from them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from skd.common.files import read_json, write_json
from skd.common.frozen import FrozenModel, canonical, digest
from skd.store.records import Record
from skd.store.store import Store, StoreEntry, StoreError
from skd.study.spec import DatasetSpec, MethodSpec, RunSpec

CACHE_FORMAT = 6  # a cache file of another format is not used


class Timing(FrozenModel):
    """The settings of one finished training, and its time and memory."""

    network: str
    teacher: str | None = None
    method: str
    batch_size: PositiveInt
    dataset: DatasetSpec
    device: str
    threads: PositiveInt | None = None
    seconds_per_epoch: PositiveFloat
    images_per_second: PositiveFloat
    peak_memory_bytes: int
    sessions: int
    sharing: PositiveInt = 1  # number of trainings that shared the device
    gpu_utilisation: float | None = None  # in % of the device, for all of them
    stored_teacher: bool = False  # whether the teacher's outputs were read from stored views
    processes: PositiveInt = 1  # number of devices that trained it together
    accumulate: PositiveInt = 1  # number of parts of each device's images of a batch
    step: str = "fast"
    precision: str = "float32"
    compiled: bool = False
    kernels: str | None = None
    optimizer: str = "sgd"
    finished_at: str = ""

    @property
    def seconds_per_step(self) -> float:
        """Device-seconds of one training step, without evaluation.

        If runs share a GPU, each uses the device for only a part of this time.
        """
        return self.processes * self.batch_size / self.images_per_second

    @property
    def device_seconds_per_epoch(self) -> float:
        """Device-seconds of one epoch with its evaluation; for shared GPUs see above."""
        return self.processes * self.seconds_per_epoch

    @property
    def execution_key(self) -> tuple[str, str, bool, str | None]:
        """The settings of the execution on which a step's time depends."""
        return self.step, self.precision, self.compiled, self.kernels

    @property
    def parts(self) -> int:
        """The number of parts of a batch over all devices."""
        return self.processes * self.accumulate

    @property
    def kind(self) -> str:
        """``cpu`` or ``gpu``; only a timing of a CPU has a number of threads."""
        return "gpu" if self.threads is None else "cpu"


class _Cached(FrozenModel):
    """The timing of a record, with the stamp of the record's file."""

    stamp: str
    timing: Timing


@dataclass(frozen=True)
class Timings:
    """All timings of a store, by their folder: ``runs/<id>`` or ``teachers/<id>``."""

    rows: dict[str, Timing]

    @cached_property
    def _index(self) -> dict[tuple[str, str, str | None, str], list[Timing]]:
        index: dict[tuple[str, str, str | None, str], list[Timing]] = {}
        for row in self.rows.values():
            index.setdefault((row.device, row.network, row.teacher, row.method), []).append(row)
        return index

    def of(self, spec: RunSpec, device: str) -> list[Timing]:
        """Return the timings with a run's networks, method and data set, with any batch size."""
        teacher = spec.teacher.network if spec.teacher else None
        rows = self._index.get((device, spec.network, teacher, _work_digest(spec)), [])
        return [row for row in rows if row.dataset.name == spec.dataset.name]

    def matching(self, spec: RunSpec, device: str, stored_teacher: bool = False) -> list[Timing]:
        """Return the timings of runs that differ from a run at most in seed, epochs or rates."""
        return [
            row
            for row in self.of(spec, device)
            if row.stored_teacher == stored_teacher
            and row.batch_size == spec.recipe.batch_size
            and row.optimizer == spec.recipe.optimizer
            and row.dataset == spec.dataset
        ]

    def devices(self, dataset: str | None = None) -> dict[str, int]:
        """Return the numbers of timings by device, the largest first.

        Args:
            dataset: count only timings of this data set; ``None``: all.
        """
        counts: dict[str, int] = {}
        for row in self.rows.values():
            if dataset in (None, row.dataset.name):
                counts[row.device] = counts.get(row.device, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def threads(self, device: str) -> int | None:
        """Return the number of threads of a CPU; ``None`` for a GPU or an unknown device."""
        return next((row.threads for row in self.rows.values() if row.device == device), None)


def method_digest(method: MethodSpec) -> str:
    """Return the hash of a resolved method, which does not depend on its name."""
    return digest(canonical(method))


def latest_execution(rows: list[Timing]) -> list[Timing]:
    """Return the rows with the same execution as the row that finished last."""
    if not rows:
        return []
    latest = max(rows, key=lambda row: row.finished_at).execution_key
    return [row for row in rows if row.execution_key == latest]


def least_shared(rows: Sequence[Timing]) -> list[Timing]:
    """Return the rows whose runs shared their device with the fewest others.

    Runs that share a CPU have their own cores: there, return the runs that were alone, or all.
    """
    least = min(row.sharing for row in rows)
    if least > 1 and rows[0].kind == "cpu":
        return [*rows]
    return [row for row in rows if row.sharing == least]


def load_timings(store: Store) -> Timings:
    """Return the timings of a store, and update its cache file.

    Records that cannot be used are skipped. If the cache file cannot be written, each call reads
    the records again.
    """
    path = store.root / "timings.json"
    previous = _read_cache(path)
    current: dict[str, _Cached] = {}
    for kind, folder in (("runs", store.root / "runs"), ("teachers", store.teachers)):
        for record in sorted(folder.glob("*/record.json")):
            key, entry = f"{kind}/{record.parent.name}", StoreEntry(record.parent)
            cached = previous.get(key)
            if cached is None or cached.stamp != _stamp(record):
                cached = _read_record(entry)
            if cached is not None:
                current[key] = cached
    if current != previous and store.root.is_dir():
        rows = {key: canonical(cached) for key, cached in current.items()}
        with contextlib.suppress(OSError):
            write_json(path, {"format": CACHE_FORMAT, "rows": rows})
    return Timings({key: cached.timing for key, cached in current.items()})


def _work_digest(spec: RunSpec) -> str:
    """Return a hash of a run's method, and of its partner if it has one."""
    method = method_digest(spec.method)
    return digest([method, spec.partner]) if spec.partner else method


def timing_of_record(record: Record) -> Timing:
    """Return the timing of a record.

    Raises:
        KeyError, TypeError, ValueError: the record lacks its device or its execution.
    """
    spec, cost = record.spec, record.cost
    environment, execution = record.environment, record.execution
    on_gpu = execution["device"] != "cpu"
    threads = None if on_gpu else int(execution.get("threads", 1))
    name = environment["gpu"] if on_gpu else f"{environment['cpu']}, {_threads(threads)}"
    return Timing(
        network=spec.network,
        teacher=spec.teacher.network if spec.teacher else None,
        method=_work_digest(spec),
        batch_size=spec.recipe.batch_size,
        dataset=spec.dataset,
        device=name,
        threads=threads,
        seconds_per_epoch=cost.seconds_per_epoch,
        images_per_second=cost.images_per_second,
        peak_memory_bytes=cost.peak_memory_bytes,
        sessions=cost.sessions,
        sharing=execution.get("sharing", 1),
        gpu_utilisation=cost.gpu_utilisation,
        stored_teacher=execution.get("teacher", "live") not in ("live", None),
        processes=execution.get("processes", 1),
        accumulate=execution.get("accumulate", 1),
        step=execution.get("step", "plain"),
        precision=execution.get("precision", "float32"),
        compiled=execution.get("compiled", False),
        kernels=execution.get("kernels"),
        optimizer=spec.recipe.optimizer,
        finished_at=record.finished_at,
    )


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _read_record(entry: StoreEntry) -> _Cached | None:
    try:
        stamp, record = _stamp(entry.record_path), entry.record()
        return record and _Cached(stamp=stamp, timing=timing_of_record(record))
    except (StoreError, KeyError, TypeError, ValueError):
        return None


def _stamp(path: Path) -> str:
    """Return the size and time of a file as text; empty if the file cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _read_cache(path: Path) -> dict[str, _Cached]:
    try:
        data = read_json(path)
        if data["format"] != CACHE_FORMAT:
            return {}
        return {key: _Cached.restore(row) for key, row in data["rows"].items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return {}
