"""Loader processes, which decode batches of photos ahead of the training."""

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

from skd.data.augmentation.policies import Policy
from skd.data.images import DataError
from skd.data.photos.decoding import decode_photo
from skd.data.photos.files import PhotoFiles
from skd.data.photos.random_resized_crop import evaluation_view, training_view

# A batch: indices of the files, and the numbers of their views or ``None`` for evaluation.
BatchTask = tuple[np.ndarray, np.ndarray | None]
PREFETCH_BATCHES = 2  # batches that each process decodes ahead
GRACE_SECONDS = 330.0  # after SIGTERM: longer than a training has to save (skd.jobs.torchrun)


class DamagedPhoto:
    """The answer of a loader process in place of a batch with a photo that cannot be read."""

    def __init__(self, message: str) -> None:
        self.message = message


class BatchDecoder(Dataset):
    """Decodes batches from files. Each loader process has a copy."""

    def __init__(self, files: PhotoFiles, policy: Policy | None = None) -> None:
        self._root, self._size, self._policy = files.root, files.size, policy
        # torch passes a tensor to all processes as one block of shared memory.
        width = files.paths.itemsize
        self._paths = torch.from_numpy(files.paths.view(np.uint8).reshape(-1, width).copy())

    def __getitem__(self, task: BatchTask) -> Tensor | DamagedPhoto:
        """Return a batch's pixels, (B, size, size, 3) uint8."""
        indices, numbers = task
        batch = torch.empty(len(indices), self._size, self._size, 3, dtype=torch.uint8)
        try:
            for row, index in enumerate(indices):
                photo = decode_photo(self._path(index))
                if numbers is None:
                    view = evaluation_view(photo, self._size)
                else:
                    view = training_view(photo, int(numbers[row]), self._size)
                batch[row] = view.permute(1, 2, 0)
        except DataError as error:
            return DamagedPhoto(str(error))
        if numbers is not None and self._policy is not None:
            return self._policy(batch.permute(0, 3, 1, 2), numbers).permute(0, 2, 3, 1)
        return batch

    def _path(self, index: int) -> Path:
        return self._root / os.fsdecode(self._paths[index].numpy().tobytes().rstrip(b"\0"))


class PhotoLoader:
    """Decodes batches of photos in its own processes, which start with the first stream.

    Args:
        files: the photos.
        device: the training's device; for a GPU, batches are in pinned memory.
        workers: number of processes; 0 decodes each batch in this process when it is read.
        policy: strong augmentation of training views; ``None``: there is none.
    """

    def __init__(
        self,
        files: PhotoFiles,
        device: torch.device,
        workers: int,
        policy: Policy | None = None,
    ) -> None:
        self._decoder, self._tasks = BatchDecoder(files, policy), []
        self._loader: DataLoader | None = DataLoader(
            self._decoder,
            batch_size=None,
            sampler=self._tasks,
            collate_fn=_identity,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH_BATCHES if workers else None,
            # A forked process would inherit this one's threads and GPU state.
            multiprocessing_context="spawn" if workers else None,
            worker_init_fn=_handle_signals,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # for the processes' seeds, which nothing uses
        )
        self._batches: Iterator[Tensor | DamagedPhoto] | None = None
        self._current: BatchStream | None = None

    def stream(self, tasks: Sequence[BatchTask]) -> BatchStream:
        """Start to decode batches, and return an iterator of them.

        Only the latest stream is decoded ahead. Reading from an earlier one resumes it at its
        position.
        """
        stream = BatchStream(self, tasks)
        self._start(stream)
        return stream

    def decode(self, task: BatchTask) -> Tensor:
        """Decode a batch's pixels in this process, (B, size, size, 3) uint8.

        Raises:
            DataError: a photo cannot be read; names it.
        """
        return _check_batch(self._decoder[task])

    def next_batch(self, stream: BatchStream) -> Tensor:
        """Return the next batch of a stream that is not exhausted.

        Raises:
            DataError: a photo cannot be read (names it), or a loader process has died.
        """
        if self._current is not stream:
            self._start(stream)
        with _explain_dead_process():
            return _check_batch(next(self._batches))

    def close(self) -> None:
        """Stop the processes. A closed loader cannot be used."""
        self._batches = self._current = self._loader = None

    def _start(self, stream: BatchStream) -> None:
        if self._loader is None:
            raise ValueError("the loader is closed")
        self._tasks[:] = stream.tasks[stream.position :]
        first = self._batches is None
        with _explain_dead_process():
            self._batches, self._current = iter(self._loader), stream
        if first:
            # Exit handlers run in reverse order: registered after torch's own, this one runs first.
            # torch's handler terminates the processes by a signal, which they ignore.
            atexit.register(_close, weakref.ref(self))


class BatchStream(Iterator[Tensor]):
    """Batches in order, (B, size, size, 3) uint8 in the CPU's memory."""

    def __init__(self, loader: PhotoLoader, tasks: Sequence[BatchTask]) -> None:
        self.tasks, self.position = tasks, 0
        self._loader = loader

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        if self.position == len(self.tasks):
            raise StopIteration
        batch = self._loader.next_batch(self)
        self.position += 1
        return batch


@contextlib.contextmanager
def _explain_dead_process() -> Iterator[None]:
    """Replace torch's error about a dead loader process by a DataError with advice."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a loader process has died ({str(error).splitlines()[0]}); often /dev/shm or the "
            "memory is too small: use fewer workers"
        ) from error


def _check_batch(batch: Tensor | DamagedPhoto) -> Tensor:
    if isinstance(batch, DamagedPhoto):
        raise DataError(batch.message)
    return batch


def _identity(batch: Tensor | DamagedPhoto) -> Tensor | DamagedPhoto:
    return batch


def _handle_signals(worker: int) -> None:
    """Delay a loader process's end after a signal, so that the training can save.

    A scheduler or Ctrl-C sends the signal to all processes of a training.
    """

    def exit_later(number: int, frame: object) -> None:
        timer = threading.Timer(GRACE_SECONDS, os._exit, [0])
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, exit_later)


def _close(reference: weakref.ref[PhotoLoader]) -> None:
    """Stop the processes of a loader, if the loader still exists."""
    if (loader := reference()) is not None:
        loader.close()
