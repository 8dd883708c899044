"""Our own side: the product's training loop as it is, with a stored teacher where that is possible.

The stored outputs are stand-ins of the real size, of random numbers: a look-up takes the same time
whatever it finds, and to make the real ones takes days on a CPU. What they take to make is measured
apart, on a part of the images.
"""

from __future__ import annotations

import math
import mmap
import tempfile
import time
from typing import Any

import numpy as np
import torch

from skd.bench.cases import Case, Options
from skd.bench.memory import OnDevice
from skd.bench.teachers import teacher_for
from skd.data import load
from skd.data.views import ViewMaker
from skd.methods import needs_of
from skd.planning.teacher_views import ViewsWish
from skd.teacher_views import BYTES, Output, stored_outputs, views_bytes
from skd.training.execution import choose
from skd.training.loop import Training
from skd.training.materials import Material
from skd.training.teacher_views import BATCH, pairs_of
from skd.training.teaching import LiveTeacher, StoredOutput, TeacherViews, Teaching

PRECISION = ViewsWish().teacher_views_precision
SECONDS = 5.0  # of building views
MOST_BYTES = 1e9 * ViewsWish().teacher_views_gigabytes


def build(case: Case, options: Options) -> Lanes:
    """Return the side of a comparison.

    Raises:
        DataError: the data set is not at hand.
        UnfitError: the method does not work on these networks.
    """
    execution = choose(options.device, options.threads)
    device = execution.apply()
    material = Material(load(case.spec.dataset), device)
    outputs = stored_outputs(needs_of(case.spec.method)) or ()
    sizes = [_bytes(case, output) for output in outputs]
    stored = bool(outputs) and options.teacher == "auto" and max(sizes) <= MOST_BYTES
    teacher: Teaching | None = None
    weights: str | None = None
    if stored:
        teacher = _stand_in(case, outputs, device)
    elif case.teacher is not None:
        network, weights = teacher_for(case, options, material.images, device)
        teacher = LiveTeacher(network.to(memory_format=execution.memory_format))
    how = {
        "teacher": "none" if case.teacher is None else "views" if stored else "live",
        "teacher_weights": weights,
        "views_precision": PRECISION if stored else None,
        "precision": "tf32" if options.device == "cuda" else "float32",
        "memory_format": "channels-last",
    }
    lanes = options.lanes or 1
    trainings = [
        Training(case.spec.model_copy(update={"seed": seed}), material, teacher, execution)
        for seed in range(lanes)
    ]
    return Lanes(trainings, how)


class Lanes(OnDevice):
    """Trainings side by side, at the first epoch's learning rate for ever."""

    def __init__(self, trainings: list[Training], how: dict[str, Any]) -> None:
        self.trainings, self._how = trainings, how
        self.device = trainings[0].device
        on_gpu = self.device.type == "cuda"
        self._streams = [torch.cuda.Stream() if on_gpu else None for _ in trainings]

    def step(self) -> None:
        """Train one step on each lane; on a GPU none waits for another."""
        for training, stream in zip(self.trainings, self._streams, strict=True):
            with torch.cuda.stream(stream):
                if training.step == training.steps_per_epoch:
                    training.step = 0
                training.advance()

    def evaluate(self) -> None:
        """Evaluate each lane on all test images."""
        for training, stream in zip(self.trainings, self._streams, strict=True):
            with torch.cuda.stream(stream):
                training.material.tests.scores(training.evaluate())

    def describe(self) -> dict[str, Any]:
        """Return how the lanes train."""
        recording = self.trainings[0].recording
        return {**self._how, "lanes": len(self.trainings), "recording": recording}


def measure_views(case: Case, options: Options) -> dict[str, Any]:
    """Return what it takes to store the case's teacher's logits, by a part of the work."""
    execution = choose(options.device, options.threads)
    device = execution.apply()
    images = load(case.spec.dataset)
    maker = ViewMaker(images, device)
    network, _ = teacher_for(case, options, images, device)
    network.to(memory_format=execution.memory_format)
    rows, done = len(maker.labels) * maker.count, 0

    @torch.no_grad()
    def some() -> None:
        nonlocal done
        indices, numbers = pairs_of(done, done + BATCH[device.type], maker.count, device)
        network(maker.batch(indices, numbers)).half().cpu()
        done += len(indices)

    some()
    done, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < SECONDS:
        some()
    return {
        "views": maker.count,
        "images": len(maker.labels),
        "seconds": passed * rows / done,
        "measured_share": done / rows,
        "bytes": _bytes(case, "logits"),
    }


def _bytes(case: Case, output: Output) -> int:
    width = case.images.classes if output == "logits" else case.teacher_facts.pooled
    return views_bytes(case.images.train_images, case.images.views, width, PRECISION)


def _stand_in(case: Case, outputs: tuple[Output, ...], device: torch.device) -> TeacherViews:
    """Return stored outputs of the real size, mapped from files that are gone with the process."""
    random = np.random.Generator(np.random.Philox(key=0))
    found: dict[Output, StoredOutput] = {}
    for output in outputs:
        shape = (case.images.train_images, case.images.views)
        width = _bytes(case, output) // (BYTES[PRECISION] * math.prod(shape))
        block = random.standard_normal((case.images.views, width), np.float32).astype(PRECISION)
        with tempfile.NamedTemporaryFile() as file:
            for _ in range(case.images.train_images):
                file.write(block.tobytes())
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        values = torch.from_numpy(np.ndarray((*shape, width), block.dtype, mapped))
        on_cpu = device.type == "cpu"
        found[output] = StoredOutput(values, mapped) if on_cpu else StoredOutput(values.to(device))
    return TeacherViews(**found)
