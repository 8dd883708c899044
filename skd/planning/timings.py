"""What finished runs and teachers of the store took. Imports no torch.

Records are large and do not change: what is read of them is kept in ``results/timings.json``.
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

CACHE_FORMAT = 6  # of the cache file: another one is read anew


class Timing(FrozenModel):
    """What one finished training was, and what it took."""

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
    sharing: PositiveInt = 1  # trainings that had the device together
    gpu_utilisation: float | None = None  # % of the device, by all of them
    stored_teacher: bool = False  # whether the teacher's outputs were looked up
    processes: PositiveInt = 1  # devices that trained it together
    accumulate: PositiveInt = 1  # parts in which each of them saw its images of a batch
    step: str = "fast"
    precision: str = "float32"
    compiled: bool = False
    kernels: str | None = None
    finished_at: str = ""

    @property
    def seconds_per_step(self) -> float:
        """Device-seconds of one training step, evaluation not counted.

        Where runs share a GPU, each has the device for a part of this time only.
        """
        return self.processes * self.batch_size / self.images_per_second

    @property
    def device_seconds_per_epoch(self) -> float:
        """Device-seconds of one epoch, evaluation included; as above where runs share a GPU."""
        return self.processes * self.seconds_per_epoch

    @property
    def execution_key(self) -> tuple[str, str, bool, str | None]:
        """How a step was executed, as far as its time depends on it."""
        return self.step, self.precision, self.compiled, self.kernels

    @property
    def parts(self) -> int:
        """Parts in which a batch was seen, over all devices."""
        return self.processes * self.accumulate

    @property
    def kind(self) -> str:
        """``cpu`` or ``gpu``: only a CPU's timing has a number of threads."""
        return "gpu" if self.threads is None else "cpu"


class _Cached(FrozenModel):
    """What was read of a record, and of which."""

    stamp: str
    timing: Timing


@dataclass(frozen=True)
class Timings:
    """All timings of a store, by the folder they come from: ``runs/<id>``, ``teachers/<id>``."""

    rows: dict[str, Timing]

    @cached_property
    def _index(self) -> dict[tuple[str, str, str | None, str], list[Timing]]:
        index: dict[tuple[str, str, str | None, str], list[Timing]] = {}
        for row in self.rows.values():
            index.setdefault((row.device, row.network, row.teacher, row.method), []).append(row)
        return index

    def of(self, spec: RunSpec, device: str) -> list[Timing]:
        """Return timings of a run's networks, method and kind of images, of any batch size."""
        teacher = spec.teacher.network if spec.teacher else None
        rows = self._index.get((device, spec.network, teacher, method_digest(spec.method)), [])
        return [row for row in rows if row.dataset.name == spec.dataset.name]

    def matching(self, spec: RunSpec, device: str, stored_teacher: bool = False) -> list[Timing]:
        """Return timings of runs that differ from this one in seed, epochs or rates at most."""
        return [
            row
            for row in self.of(spec, device)
            if row.stored_teacher == stored_teacher
            and row.batch_size == spec.recipe.batch_size
            and row.dataset == spec.dataset
        ]

    def devices(self, dataset: str | None = None) -> dict[str, int]:
        """Return the devices with their numbers of timings (of one data set), most first."""
        counts: dict[str, int] = {}
        for row in self.rows.values():
            if dataset in (None, row.dataset.name):
                counts[row.device] = counts.get(row.device, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def threads(self, device: str) -> int | None:
        """Return the number of threads of a CPU, none of a GPU or an unknown device."""
        return next((row.threads for row in self.rows.values() if row.device == device), None)


def method_digest(method: MethodSpec) -> str:
    """Return the hash of a resolved method, whatever its name."""
    return digest(canonical(method))


def latest_execution(rows: list[Timing]) -> list[Timing]:
    """Return the rows that were executed in the same way as the one that finished last."""
    if not rows:
        return []
    way = max(rows, key=lambda row: row.finished_at).execution_key
    return [row for row in rows if row.execution_key == way]


def least_shared(rows: Sequence[Timing]) -> list[Timing]:
    """Return the rows that shared their device least.

    On a CPU, where runs that share it have cores of their own: those that were alone, or else all.
    """
    least = min(row.sharing for row in rows)
    if least > 1 and rows[0].kind == "cpu":
        return [*rows]
    return [row for row in rows if row.sharing == least]


def load_timings(store: Store) -> Timings:
    """Return the timings of a store; its cache file is brought up to date.

    A record that cannot be used is passed over. Where the cache cannot be written, the records
    are read anew each time.
    """
    path = store.root / "timings.json"
    known = _read_cache(path)
    found: dict[str, _Cached] = {}
    for kind, folder in (("runs", store.root / "runs"), ("teachers", store.teachers)):
        for record in sorted(folder.glob("*/record.json")):
            key, entry = f"{kind}/{record.parent.name}", StoreEntry(record.parent)
            cached = known.get(key)
            if cached is None or cached.stamp != _stamp(record):
                cached = _read_record(entry)
            if cached is not None:
                found[key] = cached
    if found != known and store.root.is_dir():
        rows = {key: canonical(cached) for key, cached in found.items()}
        with contextlib.suppress(OSError):
            write_json(path, {"format": CACHE_FORMAT, "rows": rows})
    return Timings({key: cached.timing for key, cached in found.items()})


def timing_of_record(record: Record) -> Timing:
    """Return what a record tells.

    Raises:
        KeyError, TypeError, ValueError: it does not say on what or how the run was executed.
    """
    spec, cost = record.spec, record.cost
    environment, execution = record.environment, record.execution
    on_gpu = execution["device"] != "cpu"
    threads = None if on_gpu else int(execution.get("threads", 1))
    name = environment["gpu"] if on_gpu else f"{environment['cpu']}, {_threads(threads)}"
    return Timing(
        network=spec.network,
        teacher=spec.teacher.network if spec.teacher else None,
        method=method_digest(spec.method),
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
    """Return what changes when a file does; nothing of one that cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _read_cache(path: Path) -> dict[str, _Cached]:
    try:
        data = read_json(path)
        if data["format"] != CACHE_FORMAT:
            return {}
        return {key: _Cached.restore(row) for key, row in data["rows"].items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return {}
