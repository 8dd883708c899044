"""Stored views of a teacher: its outputs on all views of all images, made once and then mapped.

A teacher is frozen and in evaluation mode, so that its outputs are a pure function of image and
view. Reading a stored output is exact up to the stored precision.
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
from skd.training.environment import environment
from skd.training.execution import Execution
from skd.training.teacher import StoredOutput
from skd.training.weights import load_teacher_network

# Views in a forward pass: more would not fit in the cache of a CPU, fewer would not fill a GPU.
BATCH = {"cpu": 64, "cuda": 4096}
SAVE_SECONDS = 20.0
SAMPLE = 256  # number of views that are compared with the live teacher at the end
# Largest difference from the live teacher, relative to the largest output.
TOLERANCE = {"float16": 2e-3, "float32": 1e-4}


class TeacherViewsError(SkdError):
    """Stored views are missing or damaged, or cannot be stored. Says what to do."""


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
    """Return the cards of a teacher's stored views. Missing views are made first.

    If the process is killed at any moment, a further call resumes and ends with the same files.

    Args:
        entry: the teacher's folder in the store.
        dataset: the images, with their split and limit.
        outputs: the outputs to store.
        precision: of the files.
        execution: where the teacher runs.
        wait: whether to wait for another process that makes them.
        should_stop: called after each batch; true: save and stop.
        on_progress: called with the number of finished views and of all views.

    Raises:
        TeacherError: the teacher is not in the store.
        TeacherViewsError: an output is too large for the precision or differs from the live
            teacher, or the number of views of an image is not limited.
        InterruptedRunError: ``should_stop`` returned true. The work so far has been saved.
        LeaseHeldError: another process makes them, and ``wait`` is false.
    """
    card = entry.card()
    code = current_views_code(dataset, card.network) if card else None
    files = [ViewsFile(entry, dataset, output, precision, code) for output in outputs]
    if not files:
        raise TeacherViewsError("no output was given; allowed: logits, pooled")
    if not dataset_facts(dataset).views:
        raise TeacherViewsError(
            "the number of views of a photo is unlimited, so those of "
            f"{dataset.name} cannot be stored; train with a live teacher"
        )
    entry.check_link()
    with hold_lease(files[0].folder, wait=wait, should_stop=should_stop) as check_lease:
        remove_files(temporary_files(files[0].folder))
        missing = [file for file in files if file.card() is None]
        if missing:
            device = execution.configure_process()
            images = load_images(dataset)
            teacher = load_teacher_network(entry, device, images.num_classes)
            teacher.network.to(memory_format=execution.memory_format)
            maker = PixelViews(images, device)
            seconds = _write(missing, teacher.network, maker, check_lease, should_stop, on_progress)
            for file in missing:
                difference = _largest_difference(file, teacher.network, maker)
                check_lease()
                _finish(file, teacher.card, seconds, difference)
    return [card for file in files if (card := file.card()) is not None]


def open_stored_output(file: ViewsFile, device: torch.device) -> StoredOutput:
    """Return one output on all views. On a CPU it is mapped from its file, on a GPU it is loaded.

    Raises:
        TeacherViewsError: it is missing or damaged, or another teacher or other code made it.
    """
    card, teacher = file.card(), file.teacher.card()
    if card is None or teacher is None or not file.path.is_file():
        raise TeacherViewsError(
            f"{file.path} is missing, or was made by a different version of the code; make it "
            f"with: skd teacher-views … --outputs {file.output} --precision {file.precision}"
        )
    if card.teacher_sha256 != teacher.sha256 or sha256_of(file.path) != card.sha256:
        raise TeacherViewsError(
            f"{file.path} is damaged or of another teacher; remove its folder, then: "
            "skd teacher-views"
        )
    with file.path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        # Copy-on-write, since torch requires writable memory. Nothing writes to it.
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
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
) -> float:
    """Append the missing rows of some outputs; return the seconds that all rows took.

    Rows that the progress file counts are on the disk. Rows written after that are made again.
    """
    device, views = maker.labels.device, maker.views_per_image
    rows = len(maker.labels) * views
    example = network.forward_features(maker.batch(*image_and_view_of_rows(0, 1, views, device)))
    _check_disk_space(files, rows, example)
    note = files[0].folder / f"{'-'.join(file.path.stem for file in files)}.progress.json"
    done, seconds_before = _read_progress(note)
    with ExitStack() as stack:
        arrays = [
            stack.enter_context(
                _GrowingArray(file, (rows // views, views, getattr(example, file.output).shape[1]))
            )
            for file in files
        ]
        done = min([done, *(array.rows for array in arrays)])
        for array in arrays:
            array.truncate(done)
        started = saved = time.monotonic()
        while done < rows:
            indices, numbers = image_and_view_of_rows(
                done, min(rows, done + BATCH[device.type]), views, device
            )
            outputs = network.forward_features(maker.batch(indices, numbers))
            for array in arrays:
                array.append(getattr(outputs, array.file.output))
            done += len(indices)
            on_progress(done, rows)
            stopped = done < rows and should_stop()
            if stopped or done == rows or time.monotonic() - saved > SAVE_SECONDS:
                check_lease()
                for array in arrays:
                    array.sync()
                saved = time.monotonic()
                write_json(note, {"done": done, "seconds": seconds_before + saved - started})
            if stopped:
                raise InterruptedRunError(f"stopped after {done} of {rows} views; saved")
        for array in arrays:
            array.partial.replace(array.file.path)
    note.unlink()
    return seconds_before + saved - started


def _check_disk_space(files: Sequence[ViewsFile], rows: int, example: Outputs) -> None:
    """Check that the disk has space for the files, before days of work.

    Raises:
        TeacherViewsError: it has not. Says how much space is free.
    """
    need = 0
    for file in files:
        partial = file.path.with_suffix(".partial")
        written = partial.stat().st_size if partial.exists() else 0
        need += (
            rows * getattr(example, file.output).shape[1] * BYTES_PER_ELEMENT[file.precision]
            - written
        )
    free = shutil.disk_usage(files[0].folder).free
    if need > free:
        raise TeacherViewsError(
            f"{files[0].folder} has room for {free / 1e9:.1f} GB, and the views need "
            f"{need / 1e9:.1f} GB more; free some, or train with a live teacher"
        )


class _GrowingArray:
    """A .npy file that is written row by row, under another name until it is complete."""

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
        self.rows = (size - self._start) // self._row_bytes  # complete rows in the file
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def truncate(self, rows: int) -> None:
        """Keep the first rows only, and append after them."""
        self._stream.truncate(self._start + rows * self._row_bytes)
        self._stream.seek(0, os.SEEK_END)

    def append(self, values: Tensor) -> None:
        """Append rows, (rows, width).

        Raises:
            TeacherViewsError: a value is not finite, or too large for the precision.
        """
        if not bool(values.isfinite().all()):
            raise TeacherViewsError(
                f"the teacher's {self.file.output} are not finite on some views; "
                "use another teacher"
            )
        stored = values.to(getattr(torch, self.file.precision))
        if not bool(stored.isfinite().all()):
            raise TeacherViewsError(
                f"the teacher's {self.file.output} reach {values.abs().max().item():.3g}, more "
                f"than {self.file.precision} can represent; store them with --precision float32"
            )
        self._stream.write(stored.cpu().numpy().tobytes())

    def sync(self) -> None:
        """Write everything to the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _read_progress(note: Path) -> tuple[int, float]:
    """Return the number of finished views and their seconds; zeros if the file cannot be read."""
    try:
        progress = json.loads(note.read_text(encoding="utf-8"))
        return int(progress["done"]), float(progress["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0.0


def image_and_view_of_rows(
    first: int, end: int, views: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the indices of the images and the numbers of the views of some rows of a file."""
    rows = torch.arange(first, end, device=device)
    return rows // views, rows % views


@torch.no_grad()
def _largest_difference(file: ViewsFile, network: FeatureNetwork, maker: PixelViews) -> float:
    """Return the largest difference between stored outputs and live teacher on a sample of views.

    Raises:
        TeacherViewsError: it is larger than the precision explains.
    """
    stored = np.load(file.path, mmap_mode="r")
    count = len(maker.labels)
    chosen = epoch_order(0, 0, count * maker.views_per_image)[:SAMPLE].to(maker.labels.device)
    indices, numbers = chosen // maker.views_per_image, chosen % maker.views_per_image
    live = getattr(network.forward_features(maker.batch(indices, numbers)), file.output).cpu()
    sample = torch.from_numpy(stored[indices.cpu().numpy(), numbers.cpu().numpy()]).float()
    difference = (sample - live).abs().max().item()
    if not difference <= TOLERANCE[file.precision] * max(1.0, live.abs().max().item()):
        file.path.unlink()
        raise TeacherViewsError(
            f"{file.path} differed by {difference:.3g} from the teacher and has been removed; "
            "make it again"
        )
    return difference


def _finish(file: ViewsFile, teacher: TeacherCard, seconds: float, difference: float) -> None:
    """Write the card of a file."""
    facts = environment()
    card = ViewsCard(
        teacher=file.teacher.id,
        teacher_sha256=teacher.sha256,
        dataset=file.dataset,
        output=file.output,
        precision=file.precision,
        shape=np.load(file.path, mmap_mode="r").shape,
        sha256=sha256_of(file.path),
        seconds=seconds,
        device=facts["gpu"] or facts["cpu"],
        largest_difference=difference,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        code=current_views_code(file.dataset, teacher.network),
    )
    write_json(file.card_path, card.model_dump(mode="json"))
