"""What the runs of one process share on their device: images, and teachers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from skd.common.choices import TeacherSource
from skd.common.frozen import canonical, digest
from skd.data import load_dataset, make_views, strong_views, training_views
from skd.data.images import Images
from skd.data.views import Views
from skd.kernels.layers import use_kernels
from skd.kernels.tables import load_table
from skd.losses.methods import teacher_needs
from skd.losses.term import MODULE_NEEDS
from skd.store.records import TeacherCard
from skd.store.store import StoreEntry
from skd.store.teacher_view_files import (
    VIEWS_PRECISIONS,
    ViewsFile,
    ViewsOutput,
    ViewsPrecision,
    storable_outputs,
)
from skd.study.spec import DatasetSpec, Recipe, RunSpec
from skd.training.current_code import current_views_code
from skd.training.distributed import cores_per_process
from skd.training.evaluation import Evaluator
from skd.training.execution import Execution
from skd.training.stored_views import TeacherViewsError, open_stored_output
from skd.training.teacher import FrozenTeacher, LiveTeacher, StoredTeacher
from skd.training.weights import TeacherNetwork, load_teacher_network

MAX_VIEWS_SHARE = 1 / 2  # of a GPU's memory, for stored views that are used by default


class DeviceDataset:
    """The images of a data set on a device.

    Args:
        images: the data set.
        device: where batches are made.
        workers: processes that decode photos.

    Attributes:
        evaluator: evaluates networks on the test images.
    """

    def __init__(self, images: Images, device: torch.device, workers: int = 0) -> None:
        self.images, self.device = images, device
        self._views = make_views(images, device, workers)
        self.evaluator = Evaluator(images, self._views, workers)

    def views_for_training(self, recipe: Recipe) -> Views:
        """Return the views for one training. Batches are prepared in advance for it alone."""
        return training_views(self._views, recipe)

    def strong_views(self) -> Views:
        """Return the second, strong views for one training."""
        return strong_views(self._views)


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that is ready for training, and its card."""

    teacher: FrozenTeacher
    card: TeacherCard


class Resources:
    """Loads each data set, network and file of teacher outputs once, for all threads.

    Args:
        workers: processes that decode photos for each training; ``None``: on a GPU, the training's
            share of the cores; on a CPU, 0.
        trainings: number of trainings at the same time.

    Attributes:
        not_compiled: networks that could not be compiled in this process, with the reason. No
            further run of the process tries again, since each attempt takes time.
    """

    def __init__(self, workers: int | None = None, trainings: int = 1) -> None:
        self._workers, self._trainings = workers, trainings
        self._lock = threading.Lock()
        self._loaded: dict[Hashable, Any] = {}
        self.not_compiled: dict[str, str] = {}

    def dataset(self, dataset: DatasetSpec, device: torch.device) -> DeviceDataset:
        """Return a data set on a device.

        Raises:
            DataError: its files are not available.
        """
        key, workers = (digest(canonical(dataset)), device), self._workers
        if workers is None:
            cores = max(1, cores_per_process() // self._trainings)
            workers = cores if device.type == "cuda" else 0
        return self.load_once(key, lambda: DeviceDataset(load_dataset(dataset), device, workers))

    def load_once(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """Return what was loaded under a key, loading it at the first call."""
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load()
                if torch.cuda.is_initialized():  # other threads' streams do not wait for this one
                    torch.cuda.current_stream().synchronize()
            return self._loaded[key]


class TeacherRequest:
    """The teacher of a run: where its outputs may come from, and how to load it.

    A run has its teacher's outputs either from a forward pass in each step ("live"), or from the
    stored outputs for all views, in a precision. The choice is made once, before the first step.

    Args:
        spec: the run.
        entry: its teacher's folder.
    """

    def __init__(self, spec: RunSpec, entry: StoreEntry) -> None:
        self.spec, self.entry = spec, entry
        needs = teacher_needs(spec.method)
        self._problem = spec.recipe.stored_views_problem()
        # None: the run needs what is never stored.
        self._outputs = storable_outputs(spec.recipe, needs)
        self._uses_modules = bool(needs & MODULE_NEEDS)

    def choose(self, requested: TeacherSource | None, device: torch.device) -> TeacherSource:
        """Return where a new run takes its teacher's outputs from.

        Args:
            requested: the user's choice; ``None``: stored outputs if they exist and take at most
                half of a GPU's memory. A method that reads feature maps or a strong view has a
                live teacher in any case, and so has a recipe whose views cannot be stored.
            device: of the run.

        Raises:
            TeacherViewsError: the requested outputs are not stored, or the recipe's views cannot
                be stored.
        """
        if self._problem and requested not in (None, "live"):
            raise TeacherViewsError(
                f"the recipe's {self._problem}, so stored views of the teacher would be wrong; "
                "use --teacher-views auto or live"
            )
        if self._outputs is None or requested == "live":
            return "live"
        for precision in VIEWS_PRECISIONS if requested is None else (requested,):
            files = list(self._files(precision).values())
            if all(file.card() is not None for file in files):
                return precision if requested or _fit_in_memory(files, device) else "live"
            if requested is not None:
                names = ", ".join(file.path.name for file in files)
                raise TeacherViewsError(
                    f"{files[0].folder} lacks {names}; make them first: skd teacher-views"
                )
        return "live"

    def load(
        self, resources: Resources, execution: Execution, device: torch.device
    ) -> LoadedTeacher:
        """Return the teacher. The execution says where its outputs come from.

        Raises:
            TeacherError: it is not in the store, or its weights differ from its card.
            TeacherViewsError: its stored outputs are missing or damaged.
            KernelsError: the execution's table of kernels does not exist.
        """
        card = self.entry.card()
        if card is None or execution.teacher in ("live", None):
            return self._load_live(resources, execution, device)
        opened = {
            output: resources.load_once((file, device), partial(open_stored_output, file, device))
            for output, file in self._files(execution.teacher).items()
        }
        network = None
        if self._uses_modules:
            network = self._load_network(resources, execution, device).network
        return LoadedTeacher(StoredTeacher(network, **opened), card)

    def _load_live(
        self, resources: Resources, execution: Execution, device: torch.device
    ) -> LoadedTeacher:
        loaded = self._load_network(resources, execution, device)
        size = self.spec.recipe.batch_size if execution.compiled else None
        return LoadedTeacher(LiveTeacher(loaded.network, compiled_for=size), loaded.card)

    def _load_network(
        self, resources: Resources, execution: Execution, device: torch.device
    ) -> TeacherNetwork:
        classes = resources.dataset(self.spec.dataset, device).images.num_classes

        def load() -> TeacherNetwork:
            loaded = load_teacher_network(self.entry, device, classes)
            prepare_teacher_network(loaded.network, execution)
            return loaded

        key = (self.entry, execution.memory_format, execution.kernels, device)
        return resources.load_once(key, load)

    def _files(self, precision: ViewsPrecision) -> dict[ViewsOutput, ViewsFile]:
        """Return the files of the stored outputs that the method needs."""
        code = current_views_code(self.spec.dataset, self.spec.teacher.network)
        return {
            output: ViewsFile(self.entry, self.spec.dataset, output, precision, code)
            for output in self._outputs or ()
        }


def prepare_teacher_network(network: nn.Module, execution: Execution) -> None:
    """Give a teacher's network the memory format and the kernels of an execution, in place.

    Raises:
        KernelsError: the execution's table of kernels does not exist.
    """
    network.to(memory_format=execution.memory_format)
    if execution.kernels:
        use_kernels(network, load_table(execution.kernels))


def _fit_in_memory(files: list[ViewsFile], device: torch.device) -> bool:
    """Return whether stored outputs are small enough to be used without a request."""
    if device.type == "cpu":
        return True  # files are mapped, not read
    memory = torch.cuda.get_device_properties(device).total_memory
    return sum(file.path.stat().st_size for file in files) <= MAX_VIEWS_SHARE * memory
