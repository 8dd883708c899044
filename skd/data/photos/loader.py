"""Loader processes: views of photos decoded ahead, batch by batch, in the order asked for."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skd.data.images import DataError
from skd.data.photos.decoding import decode_photo
from skd.data.photos.files import PhotoFiles
from skd.data.photos.random_resized_crop import evaluation_view, training_view

# A batch: places among the files, and the views' numbers; none: as an evaluation sees them.
BatchTask = tuple[np.ndarray, np.ndarray | None]
PREFETCH_BATCHES = 2  # batches that each process decodes ahead
GRACE_SECONDS = 330.0  # after SIGTERM: longer than a training has to save (skd.jobs.torchrun)


class DamagedPhoto:
    """A photo could not be read: what a loader process answers in place of a batch."""

    def __init__(self, message: str) -> None:
        self.message = message


class BatchDecoder(Dataset):
    """Makes batches from files. It is what a loader process has."""

    def __init__(self, files: PhotoFiles) -> None:
        self._root, self._size = files.root, files.size
        # As a tensor: torch hands it to all processes as one block of shared memory.
        width = files.paths.itemsize
        self._paths = torch.from_numpy(files.paths.view(np.uint8).reshape(-1, width).copy())

    def __getitem__(self, task: BatchTask) -> Tensor | DamagedPhoto:
        """Return a batch's pixels, (B, size, size, 3) uint8."""
        places, numbers = task
        batch = torch.empty(len(places), self._size, self._size, 3, dtype=torch.uint8)
        try:
            for row, place in enumerate(places):
                photo = decode_photo(self._path(place))
                if numbers is None:
                    view = evaluation_view(photo, self._size)
                else:
                    view = training_view(photo, int(numbers[row]), self._size)
                batch[row] = view.permute(1, 2, 0)
        except DataError as error:
            return DamagedPhoto(str(error))
        return batch

    def _path(self, place: int) -> Path:
        return self._root / os.fsdecode(self._paths[place].numpy().tobytes().rstrip(b"\0"))


class PhotoLoader:
    """Decodes batches of photos in processes of its own, which start at the first `run`.

    Args:
        files: the photos.
        device: where batches go: for a GPU they lie in pinned memory.
        workers: processes; 0: this one decodes, when it is asked.
    """

    def __init__(self, files: PhotoFiles, device: torch.device, workers: int) -> None:
        self._decoder, self._tasks = BatchDecoder(files), []
        self._loader: DataLoader | None = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=self._tasks,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH_BATCHES if workers else None,
            # Not forked: this process may have threads, and a GPU.
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=_begin_worker,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # of the processes' seeds, which are not used
        )
        self._batches: Iterator[Tensor | DamagedPhoto] | None = None
        self._current: BatchStream | None = None

    def run(self, tasks: Sequence[BatchTask]) -> BatchStream:
        """Begin to decode batches, and return them as they are asked for.

        The last one begun is decoded ahead; an earlier one that is asked goes on where it was.
        """
        begun = BatchStream(self, tasks)
        self._begin(begun)
        return begun

    def decode(self, task: BatchTask) -> Tensor:
        """Return a batch's pixels, decoded in this process, (B, size, size, 3) uint8.

        Raises:
            DataError: a photo cannot be read; names it.
        """
        return _sound(self._decoder[task])

    def next_batch(self, run: BatchStream) -> Tensor:
        """Return the next batch of a run, which has one.

        Raises:
            DataError: a photo cannot be read, and which; or a process has died.
        """
        if self._current is not run:
            self._begin(run)
        with _telling_of_deaths():
            return _sound(next(self._batches))

    def close(self) -> None:
        """End the processes; nothing can be run afterwards."""
        self._batches = self._current = self._loader = None

    def _begin(self, run: BatchStream) -> None:
        if self._loader is None:
            raise ValueError("the loader is closed")
        self._tasks[:] = run.tasks[run.done :]
        begun = self._batches is not None
        with _telling_of_deaths():
            self._batches, self._current = iter(self._loader), run
        if not begun:  # after torch's own, so that it is called before: those would not be obeyed
            atexit.register(_close, weakref.ref(self))


class BatchStream(Iterator[Tensor]):
    """Batches in order, (B, size, size, 3) uint8 in the CPU's memory."""

    def __init__(self, loader: PhotoLoader, tasks: Sequence[BatchTask]) -> None:
        self.tasks, self.done = tasks, 0
        self._loader = loader

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        if self.done == len(self.tasks):
            raise StopIteration
        made = self._loader.next_batch(self)
        self.done += 1
        return made


@contextlib.contextmanager
def _telling_of_deaths() -> Iterator[None]:
    """Turn what torch raises where a process has died into an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a loader process has died ({str(error).splitlines()[0]}); often /dev/shm or the "
            "memory is too small: take fewer workers"
        ) from error


def _sound(made: Tensor | DamagedPhoto) -> Tensor:
    if isinstance(made, DamagedPhoto):
        raise DataError(made.message)
    return made


def _as_it_is(batch: Tensor | DamagedPhoto) -> Tensor | DamagedPhoto:
    return batch


def _begin_worker(worker: int) -> None:
    """Let the training save before its processes obey a signal that was sent to all of them."""

    def leave(number: int, frame: object) -> None:
        timer = threading.Timer(GRACE_SECONDS, os._exit, [0])
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave)


def _close(loader: weakref.ref[PhotoLoader]) -> None:
    """End the processes of a loader that is still there."""
    if (there := loader()) is not None:
        there.close()
