"""Making a teacher's views, once, and opening them: files that are mapped, not read.

A teacher is frozen and in evaluation mode, so that its outputs on a view are a pure function of
(image, view): a look-up is exact up to the stored precision.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from skd.common.errors import InterruptedRunError, SkdError
from skd.common.files import sha256_of, write_json
from skd.common.lease import hold_lease
from skd.common.temporary_files import temporary_files
from skd.data import dataset_facts
from skd.data import load_dataset as load_images
from skd.data.views import PixelViews, epoch_order
from skd.models import FeatureNetwork, Outputs
from skd.store.leftovers import remove_files
from skd.store.records import TeacherCard
from skd.store.store import StoreEntry
from skd.store.teacher_view_files import (
    BYTES_PER_ELEMENT,
    ViewsCard,
    ViewsFile,
    ViewsOutput,
    ViewsPrecision,
)
from skd.study.spec import DatasetSpec
from skd.training.current_code import current_views_code
from skd.training.execution import Execution, environment
from skd.training.teacher import StoredOutput
from skd.training.weights import load_teacher_network

# Views a forward pass: on a CPU more would leave its cache, on a GPU fewer would leave it idle.
BATCH = {"cpu": 64, "cuda": 4096}
SAVE_SECONDS = 20.0
SAMPLE = 256  # views that are compared with the live teacher in the end
# What the stored precision may add to rounding, relative to the largest output.
TOLERANCE = {"float16": 2e-3, "float32": 1e-4}


class TeacherViewsError(SkdError):
    """Teacher views are not there, damaged, or cannot be stored. Says what to do."""


def make_teacher_views(
    entry: StoreEntry,
    dataset: DatasetSpec,
    outputs: Sequence[ViewsOutput],
    precision: ViewsPrecision,
    execution: Execution,
    wait: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, all_views: None,
) -> list[ViewsCard]:
    """Return the cards of a teacher's views, making those that are not there.

    Killed anywhere and started again, it goes on and leaves the same files.

    Args:
        entry: the teacher's folder in the store.
        dataset: the images; their split and limit applied.
        outputs: which of the teacher's outputs.
        precision: of the files.
        execution: where the teacher runs.
        wait: wait for another process that makes them, instead of refusing.
        should_stop: asked after each batch; true: save and leave.
        on_progress: called with the views done and all of them.

    Raises:
        TeacherError: the teacher is not at hand.
        TeacherViewsError: an output is too large for the precision, or not what the teacher says;
            or the images' views are endless.
        InterruptedRunError: asked to stop, and has saved.
        LeaseHeldError: another process makes them, and it shall not be waited for.
    """
    known = entry.card()
    code = current_views_code(dataset, known.network) if known else None
    files = [ViewsFile(entry, dataset, output, precision, code) for output in outputs]
    if not files:
        raise TeacherViewsError("no output was asked for; allowed: logits, pooled")
    if not dataset_facts(dataset).views:
        raise TeacherViewsError(
            f"photos have endless views, and those of {dataset.name} cannot be stored; train with "
            "a live teacher"
        )
    entry.check_link()
    with hold_lease(files[0].folder, wait=wait, should_stop=should_stop) as still_mine:
        remove_files(temporary_files(files[0].folder))
        missing = [file for file in files if file.card() is None]
        if missing:
            device = execution.apply()
            images = load_images(dataset)
            teacher = load_teacher_network(entry, device, images.num_classes)
            teacher.network.to(memory_format=execution.memory_format)
            maker = PixelViews(images, device)
            seconds = _write(missing, teacher.network, maker, still_mine, should_stop, on_progress)
            for file in missing:
                difference = _largest_difference(file, teacher.network, maker)
                still_mine()
                _finish(file, teacher.card, seconds, difference)
    return [card for file in files if (card := file.card()) is not None]


def open_stored_output(file: ViewsFile, device: torch.device) -> StoredOutput:
    """Return one output on all views: mapped from its file on a CPU, else loaded.

    Raises:
        TeacherViewsError: it is not there, damaged, of another teacher, or stored by other code.
    """
    card, teacher = file.card(), file.teacher.card()
    if card is None or teacher is None or not file.path.is_file():
        raise TeacherViewsError(
            f"{file.path} is not there, or other code than today's has made it; make it with: "
            f"skd teacher-views … --outputs {file.output} --precision {file.precision}"
        )
    if card.teacher_sha256 != teacher.sha256 or sha256_of(file.path) != card.sha256:
        raise TeacherViewsError(
            f"{file.path} is damaged or of another teacher; remove its folder, then: "
            "skd teacher-views"
        )
    with file.path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        # Copy-on-write: torch wants memory that may be written, and nobody writes.
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        array = np.ndarray(shape, dtype, mapped, offset=stream.tell())
    values = torch.from_numpy(array)
    return StoredOutput(values, mapped) if device.type == "cpu" else StoredOutput(values.to(device))


@torch.no_grad()
def _write(
    files: Sequence[ViewsFile],
    network: FeatureNetwork,
    maker: PixelViews,
    check_lease: Callable[[], None],
    stopping: Callable[[], bool],
    on_progress: Callable[[int, int], None],
) -> float:
    """Append what is missing of some outputs, one view after the other; return the seconds of all.

    What is noted as done is on the disk; what was written after that is cut off and made again.
    """
    device, views = maker.labels.device, maker.views_per_image
    rows = len(maker.labels) * views
    example = network.forward_features(maker.batch(*image_and_view_of_rows(0, 1, views, device)))
    _check_room(files, rows, example)
    note = files[0].folder / f"{'-'.join(file.path.stem for file in files)}.progress.json"
    done, before = _noted(note)
    with ExitStack() as stack:
        arrays = [
            stack.enter_context(
                _GrowingArray(file, (rows // views, views, getattr(example, file.output).shape[1]))
            )
            for file in files
        ]
        done = min([done, *(array.rows for array in arrays)])
        for array in arrays:
            array.cut(done)
        begun = saved = time.monotonic()
        while done < rows:
            indices, numbers = image_and_view_of_rows(
                done, min(rows, done + BATCH[device.type]), views, device
            )
            outputs = network.forward_features(maker.batch(indices, numbers))
            for array in arrays:
                array.append(getattr(outputs, array.file.output))
            done += len(indices)
            on_progress(done, rows)
            stopped = done < rows and stopping()
            if stopped or done == rows or time.monotonic() - saved > SAVE_SECONDS:
                check_lease()
                for array in arrays:
                    array.sync()
                saved = time.monotonic()
                write_json(note, {"done": done, "seconds": before + saved - begun})
            if stopped:
                raise InterruptedRunError(f"stopped after {done} of {rows} views; saved")
        for array in arrays:
            array.partial.replace(array.file.path)
    note.unlink()
    return before + saved - begun


def _check_room(files: Sequence[ViewsFile], rows: int, example: Outputs) -> None:
    """Refuse what the disk has no room for, before days of work.

    Raises:
        TeacherViewsError: says how much there is.
    """
    need = 0
    for file in files:
        partial = file.path.with_suffix(".partial")
        there = partial.stat().st_size if partial.exists() else 0
        need += (
            rows * getattr(example, file.output).shape[1] * BYTES_PER_ELEMENT[file.precision]
            - there
        )
    free = shutil.disk_usage(files[0].folder).free
    if need > free:
        raise TeacherViewsError(
            f"{files[0].folder} has room for {free / 1e9:.1f} GB, and the views need "
            f"{need / 1e9:.1f} GB more; free some, or train with a live teacher"
        )


class _GrowingArray:
    """A .npy file written row by row, under another name until it is whole."""

    def __init__(self, file: ViewsFile, shape: tuple[int, int, int]) -> None:
        self.file, self.shape = file, shape
        self.partial = file.path.with_suffix(".partial")

    def __enter__(self) -> Self:
        self.partial.touch()
        self._stream = self.partial.open("r+b")
        header = {
            "descr": np.dtype(self.file.precision).str,
            "fortran_order": False,
            "shape": self.shape,
        }
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._start = self._stream.tell()
        self._row_bytes = self.shape[2] * BYTES_PER_ELEMENT[self.file.precision]
        size = self._stream.seek(0, os.SEEK_END)
        self.rows = (size - self._start) // self._row_bytes  # whole ones that are there
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def cut(self, rows: int) -> None:
        """Go on after so many rows."""
        self._stream.truncate(self._start + rows * self._row_bytes)
        self._stream.seek(0, os.SEEK_END)

    def append(self, values: Tensor) -> None:
        """Write rows, (any, width).

        Raises:
            TeacherViewsError: values that are not finite, or that the precision cannot hold.
        """
        if not bool(values.isfinite().all()):
            raise TeacherViewsError(
                f"the teacher's {self.file.output} are not finite on some views: it cannot teach; "
                "take another teacher"
            )
        stored = values.to(getattr(torch, self.file.precision))
        if not bool(stored.isfinite().all()):
            raise TeacherViewsError(
                f"the teacher's {self.file.output} reach {values.abs().max().item():.3g}, more "
                f"than {self.file.precision} holds; store them with --precision float32"
            )
        self._stream.write(stored.cpu().numpy().tobytes())

    def sync(self) -> None:
        """Have everything on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _noted(note: Path) -> tuple[int, float]:
    """Return the views that are done and the seconds they took; what cannot be read is nothing."""
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        return int(noted["done"]), float(noted["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0.0


def image_and_view_of_rows(
    first: int, end: int, views: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return images' places and views' numbers of some rows of the file."""
    rows = torch.arange(first, end, device=device)
    return rows // views, rows % views


@torch.no_grad()
def _largest_difference(file: ViewsFile, network: FeatureNetwork, maker: PixelViews) -> float:
    """Return how far the stored outputs are from the live teacher's, at most, on some views.

    Raises:
        TeacherViewsError: further than the precision explains.
    """
    stored = np.load(file.path, mmap_mode="r")
    count = len(maker.labels)
    chosen = epoch_order(0, 0, count * maker.views_per_image)[:SAMPLE].to(maker.labels.device)
    indices, numbers = chosen // maker.views_per_image, chosen % maker.views_per_image
    live = getattr(network.forward_features(maker.batch(indices, numbers)), file.output).cpu()
    found = torch.from_numpy(stored[indices.cpu().numpy(), numbers.cpu().numpy()]).float()
    difference = (found - live).abs().max().item()
    if not difference <= TOLERANCE[file.precision] * max(1.0, live.abs().max().item()):
        file.path.unlink()
        raise TeacherViewsError(
            f"{file.path} was {difference:.3g} away from the teacher and has been removed; "
            "make it again"
        )
    return difference


def _finish(file: ViewsFile, teacher: TeacherCard, seconds: float, difference: float) -> None:
    """Leave a file's card."""
    here = environment()
    card = ViewsCard(
        teacher=file.teacher.id,
        teacher_sha256=teacher.sha256,
        dataset=file.dataset,
        output=file.output,
        precision=file.precision,
        shape=np.load(file.path, mmap_mode="r").shape,
        sha256=sha256_of(file.path),
        seconds=seconds,
        device=here["gpu"] or here["cpu"],
        largest_difference=difference,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        code=current_views_code(file.dataset, teacher.network),
    )
    write_json(file.card_path, card.model_dump(mode="json"))
