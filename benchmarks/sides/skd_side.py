"""Our side: this project's training loop, with stored teacher outputs if possible.

The stored outputs are random numbers of the real size. A look-up takes the same time for any
values, and computing the real outputs takes days on a CPU. The cost of computing them is measured
separately, on a part of the images.
"""

from __future__ import annotations

import copy
import gc
import math
import mmap
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.sides.side_base import SideBase
from benchmarks.sides.teacher import build_teacher
from benchmarks.variants import train_choice, variant_execution
from skd.data import load_dataset
from skd.data.views import PixelViews
from skd.losses.methods import teacher_needs
from skd.models import FeatureNetwork
from skd.planning.views_choice import ViewsConfig
from skd.store.teacher_view_files import BYTES_PER_ELEMENT, ViewsOutput, stored_outputs, views_bytes
from skd.training.execution import choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset, prepare_teacher_network
from skd.training.stored_views import BATCH, image_and_view_of_rows
from skd.training.teacher import FrozenTeacher, LiveTeacher, StoredOutput, StoredTeacher

VIEWS_PRECISION = ViewsConfig().teacher_views_precision
VIEWS_MEASURE_SECONDS = 5.0  # of building views
MAX_VIEWS_BYTES = 1e9 * ViewsConfig().teacher_views_gigabytes


def build(case: BenchmarkCase, options: SideOptions) -> SkdSide:
    """Return the side of a comparison.

    Raises:
        DataError: the data set is missing.
        UnfitError: the method does not work on these networks, or the variant not on this device.
    """
    return SkdSide(case, options)


@dataclass(frozen=True)
class Lane:
    """A training and its CUDA stream; the stream is ``None`` on a CPU."""

    training: Training
    stream: torch.cuda.Stream | None


class SkdSide(SideBase):
    """Parallel lanes of one variant, always at the first epoch's learning rate.

    The images and the teacher (or its placeholder outputs) are built once and shared by all
    variants that are built one after the other.
    """

    def __init__(self, case: BenchmarkCase, options: SideOptions) -> None:
        self._case, self._place = case, choose_execution(options.device, options.threads)
        variant_execution(options.variant, self._place)  # refuses, before anything takes time
        self.device = self._place.configure_process()
        self._dataset = DeviceDataset(load_dataset(case.spec.dataset), self.device)
        outputs = stored_outputs(teacher_needs(case.spec.method)) or ()
        sizes = [_bytes(case, output) for output in outputs]
        stored = bool(outputs) and options.teacher == "auto" and max(sizes) <= MAX_VIEWS_BYTES
        self._stored: StoredTeacher | None = None
        self._network: FeatureNetwork | None = None
        weights: str | None = None
        if stored:
            self._stored = _placeholder_outputs(case, outputs, self.device)
        elif case.teacher is not None:
            teacher = build_teacher(case, options, self._dataset.images, self.device)
            self._network, weights = teacher
        self._teacher_facts = {
            "teacher": "none" if case.teacher is None else "views" if stored else "live",
            "teacher_weights": weights,
            "views_precision": VIEWS_PRECISION if stored else None,
        }
        self.lanes: list[Lane] = []
        self.rebuild(options)

    def rebuild(self, options: SideOptions) -> None:
        """Release the existing lanes, and build lanes with the given options.

        Raises:
            UnfitError: the variant does not work on this device; another one may.
        """
        self._release()
        execution = variant_execution(options.variant, self._place)
        self._variant, self._execution = options.variant, execution
        self.synchronise()  # the lanes' streams do not wait for earlier work
        teacher = self._teacher()
        self.lanes = [self._lane(seed, teacher) for seed in range(options.lanes or 1)]

    def step(self) -> None:
        """Train one step on each lane. On a GPU the lanes do not wait for each other."""
        for lane in self.lanes:
            with torch.cuda.stream(lane.stream):
                if lane.training.step == lane.training.steps_per_epoch:
                    lane.training.step = 0
                lane.training.advance()

    def evaluate(self) -> None:
        """Evaluate each lane on all test images. On a GPU the lanes do not wait for each other."""
        all_logits = []
        for lane in self.lanes:
            with torch.cuda.stream(lane.stream):
                all_logits.append(lane.training.evaluate())
        for lane, logits in zip(self.lanes, all_logits, strict=True):
            with torch.cuda.stream(lane.stream):
                lane.training.dataset.evaluator.scores(logits)

    def describe(self) -> dict[str, Any]:
        """Return how the lanes train."""
        execution = self._execution
        chosen = train_choice(self._place, self._case.steps)
        half, on_gpu = execution.precision == "bfloat16", self.device.type == "cuda"
        return {
            **self._teacher_facts,
            "choice": "the product's default" if self._variant == chosen else None,
            "step": execution.step,
            "compiled": "yes" if execution.compiled else None,
            "kernels": execution.kernels,
            "precision": "bfloat16" if half else "tf32" if on_gpu else "float32",
            "memory_format": "channels-last",
            "lanes": len(self.lanes),
            "recording": str(self.lanes[0].training.recorder),
            "not_compiled": self.lanes[0].training.execution.not_compiled,
        }

    def _lane(self, seed: int, teacher: FrozenTeacher | None) -> Lane:
        stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        spec = self._case.spec.model_copy(update={"seed": seed})
        with torch.cuda.stream(stream):  # the nodes of autograd's graph keep their stream
            training = Training(spec, self._dataset, teacher, self._execution)
            training.prepare()
        return Lane(training, stream)

    def _teacher(self) -> FrozenTeacher | None:
        """Return the teacher of all lanes. A network is copied, because a variant may change it."""
        if self._network is not None:
            network = copy.deepcopy(self._network)
            prepare_teacher_network(network, self._execution)
            size = self._case.batch_size if self._execution.compiled else None
            return LiveTeacher(network, compiled_for=size)
        return self._stored

    def _release(self) -> None:
        if not self.lanes:
            return
        self.synchronise()
        self.lanes = []
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def measure_views(case: BenchmarkCase, options: SideOptions) -> dict[str, Any]:
    """Return the cost of storing the logits of the case's teacher, extrapolated from a part."""
    execution = choose_execution(options.device, options.threads)
    device = execution.configure_process()
    images = load_dataset(case.spec.dataset)
    maker = PixelViews(images, device)
    network, _ = build_teacher(case, options, images, device)
    network.to(memory_format=execution.memory_format)
    rows, done = len(maker.labels) * maker.views_per_image, 0

    @torch.no_grad()
    def compute_batch() -> None:
        nonlocal done
        indices, numbers = image_and_view_of_rows(
            done, done + BATCH[device.type], maker.views_per_image, device
        )
        network(maker.batch(indices, numbers)).half().cpu()
        done += len(indices)

    compute_batch()  # warm up
    done, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < VIEWS_MEASURE_SECONDS:
        compute_batch()
    return {
        "views": maker.views_per_image,
        "images": len(maker.labels),
        "seconds": passed * rows / done,
        "measured_share": done / rows,
        "bytes": _bytes(case, "logits"),
    }


def _bytes(case: BenchmarkCase, output: ViewsOutput) -> int:
    width = case.images.classes if output == "logits" else case.teacher_facts.pooled
    return views_bytes(case.images.train_images, case.images.views, width, VIEWS_PRECISION)


def _placeholder_outputs(
    case: BenchmarkCase, outputs: tuple[ViewsOutput, ...], device: torch.device
) -> StoredTeacher:
    """Return random outputs of the real size: on a GPU, or mapped from a temporary file."""
    random = np.random.Generator(np.random.Philox(key=0))
    stored: dict[ViewsOutput, StoredOutput] = {}
    for output in outputs:
        shape = (case.images.train_images, case.images.views)
        width = _bytes(case, output) // (BYTES_PER_ELEMENT[VIEWS_PRECISION] * math.prod(shape))
        block = random.standard_normal((case.images.views, width), np.float32).astype(
            VIEWS_PRECISION
        )
        if device.type == "cuda":
            images = torch.from_numpy(block).to(device).expand(*shape, width)
            stored[output] = StoredOutput(images.contiguous())
            continue
        with tempfile.TemporaryFile() as file:
            for _ in range(case.images.train_images):
                file.write(block.tobytes())
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        values = torch.from_numpy(np.ndarray((*shape, width), block.dtype, mapped))
        stored[output] = StoredOutput(values, mapped)
    return StoredTeacher(**stored)
