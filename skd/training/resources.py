"""What runs of one process share on their device: images, and teachers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from skd.common.choices import TeacherOutputs
from skd.common.frozen import canonical, digest
from skd.data import load_dataset as load_images
from skd.data import make_views
from skd.data.images import Images
from skd.data.views import Views
from skd.kernels.layers import use_kernels
from skd.kernels.tables import load_table
from skd.losses.methods import teacher_needs
from skd.store.records import TeacherCard
from skd.store.store import StoreEntry
from skd.store.teacher_view_files import VIEWS_PRECISIONS, ViewsFile, stored_outputs
from skd.study.spec import DatasetSpec, RunSpec
from skd.training.current_code import current_views_code
from skd.training.distributed import cores_per_process
from skd.training.evaluation import Evaluator
from skd.training.execution import Execution
from skd.training.stored_views import TeacherViewsError, open_stored_output
from skd.training.teacher import FrozenTeacher, LiveTeacher, StoredTeacher
from skd.training.weights import TeacherNetwork, load_teacher_network


class DeviceDataset:
    """A data set for a device."""

    def __init__(self, images: Images, device: torch.device, workers: int = 0) -> None:
        self.images, self.device = images, device
        self._views = make_views(images, device, workers)
        self.tests = Evaluator(images, self._views, workers)

    def views(self) -> Views:
        """Return views for one training: those that look ahead do so for it alone."""
        return self._views.for_training()


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher, ready to be asked, and its card."""

    outputs: FrozenTeacher
    card: TeacherCard


class Resources:
    """Loads each data set, network and file of views once, for all threads of the process.

    Args:
        workers: processes that decode photos for each training; none: its share of the cores where
            a GPU waits for them, else 0.
        trainings: at the same time.

    Attributes:
        not_compiled: why networks, by name, could not be compiled in this process: to try again in
            every run would take its time each time.
    """

    def __init__(self, workers: int | None = None, trainings: int = 1) -> None:
        self._workers, self._trainings = workers, trainings
        self._lock = threading.Lock()
        self._kept: dict[Hashable, Any] = {}
        self.not_compiled: dict[str, str] = {}

    def data(self, dataset: DatasetSpec, device: torch.device) -> DeviceDataset:
        """Return a data set on a device.

        Raises:
            DataError: its files are not to be had.
        """
        key, workers = (digest(canonical(dataset)), device), self._workers
        if workers is None:
            cores = max(1, cores_per_process() // self._trainings)
            workers = cores if device.type == "cuda" else 0
        return self._once(key, lambda: DeviceDataset(load_images(dataset), device, workers))

    def teacher(
        self, spec: RunSpec, entry: StoreEntry, execution: Execution, device: torch.device
    ) -> LoadedTeacher:
        """Return a run's teacher in the way that its execution has fixed.

        Raises:
            TeacherError: it is not at hand, or its weights are not those on its card.
            TeacherViewsError: its views are not at hand or damaged.
            KernelsError: the table of kernels is not there.
        """
        card, how = entry.card(), execution.teacher
        if how == "live" or card is None:
            classes = self.data(spec.dataset, device).images.num_classes

            def load() -> TeacherNetwork:
                loaded = load_teacher_network(entry, device, classes)
                prepare_teacher_network(loaded.network, execution)
                return loaded

            key = (entry, execution.memory_format, execution.kernels, device)
            loaded = self._once(key, load)
            size = spec.recipe.batch_size if execution.compiled else None
            return LoadedTeacher(LiveTeacher(loaded.network, compiled_for=size), loaded.card)
        code = current_views_code(spec.dataset, spec.teacher.network)
        files = {
            output: ViewsFile(entry, spec.dataset, output, how, code)
            for output in stored_outputs(teacher_needs(spec.method)) or ()
        }
        opened = {
            output: self._once((file, device), partial(open_stored_output, file, device))
            for output, file in files.items()
        }
        return LoadedTeacher(StoredTeacher(**opened), card)

    def _once(self, key: Hashable, load: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = load()
                if torch.cuda.is_initialized():  # other threads' streams do not wait for ours
                    torch.cuda.current_stream().synchronize()
            return self._kept[key]


def prepare_teacher_network(network: nn.Module, execution: Execution) -> None:
    """Give a teacher's network the memory format and the kernels of an execution, in place.

    Raises:
        KernelsError: the table of kernels is not there.
    """
    network.to(memory_format=execution.memory_format)
    if execution.kernels:
        use_kernels(network, load_table(execution.kernels))


def choose_teacher_outputs(
    requested: TeacherOutputs | None, spec: RunSpec, entry: StoreEntry, device: torch.device
) -> TeacherOutputs:
    """Return where a run that is begun now has its teacher's outputs from.

    Args:
        requested: the user's wish, or none: stored views where they are at hand and take no more than
            half of a GPU's memory. A method that reads maps has a live teacher in any case.
        spec: the run.
        entry: its teacher's folder.
        device: of the run.

    Raises:
        TeacherViewsError: the views that were asked for are not at hand.
    """
    outputs = stored_outputs(teacher_needs(spec.method))
    if outputs is None or requested == "live":
        return "live"
    code = current_views_code(spec.dataset, spec.teacher.network)
    for precision in VIEWS_PRECISIONS if requested is None else (requested,):
        files = [ViewsFile(entry, spec.dataset, output, precision, code) for output in outputs]
        if all(file.card() is not None for file in files):
            return precision if requested or _fit(files, device) else "live"
        if requested is not None:
            names = ", ".join(file.path.name for file in files)
            raise TeacherViewsError(
                f"{files[0].folder} lacks {names}; make them first: skd teacher-views"
            )
    return "live"


def _fit(files: list[ViewsFile], device: torch.device) -> bool:
    if device.type == "cpu":
        return True  # they are mapped
    memory = torch.cuda.get_device_properties(device).total_memory
    return sum(file.path.stat().st_size for file in files) <= memory / 2
