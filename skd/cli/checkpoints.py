"""The commands `skd evaluate` and `skd import-teacher`. Torch is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from skd.cli.options import (
    DEFAULT_RESULTS,
    CheckpointArgument,
    DatasetOption,
    DeviceOption,
    NetworkOption,
    ResultsOption,
    ThreadsOption,
)
from skd.store.store import Store
from skd.study.sheet import StudyError, format_validation_error
from skd.study.spec import DatasetSpec

if TYPE_CHECKING:
    from skd.models import FeatureNetwork


def evaluate(
    checkpoint: CheckpointArgument,
    network: NetworkOption,
    dataset: DatasetOption = "cifar100",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure a checkpoint's accuracy on the test images of a data set."""
    from skd.training.execution import choose_execution
    from skd.training.resources import Resources

    torch_device, spec = (
        choose_execution(device, threads).configure_process(),
        _dataset_spec(dataset),
    )
    # Arguments are checked before the data set is downloaded.
    model = _load_network(checkpoint, network, spec)
    evaluator = Resources().dataset(spec, torch_device).evaluator
    scores = evaluator.scores(evaluator.logits(model.to(torch_device)))
    print(
        f"{network} on {dataset}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
        f"cross-entropy {scores.loss:.4f}, {len(evaluator.labels)} test images"
    )


def import_teacher(
    checkpoint: CheckpointArgument,
    network: NetworkOption,
    dataset: DatasetOption = "cifar100",
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    accept_poor: Annotated[
        bool,
        typer.Option(
            "--accept-poor",
            help="import the checkpoint even if its accuracy is below twice the chance level",
        ),
    ] = False,
) -> None:
    """Import a checkpoint as a teacher, and print the lines that a study sheet needs to use it.

    The command first measures the checkpoint on the test images. It refuses a checkpoint whose
    accuracy is below twice the chance level.
    """
    from skd.common.files import sha256_of
    from skd.study.import_lines import check_sheet_path, teacher_sheet_lines
    from skd.study.sheet import ImportSource
    from skd.study.spec import ImportedTeacher
    from skd.training import teacher_setup
    from skd.training.execution import choose_execution

    spec = _dataset_spec(dataset)
    _check_network(network, spec)
    teacher_setup.check_checkpoint_file(checkpoint)
    check_sheet_path(checkpoint)
    # A checkpoint that does not fit the network is refused before the store is changed.
    _load_network(checkpoint, network, spec)
    sha256 = sha256_of(checkpoint)
    teacher = ImportedTeacher(network=network, dataset=spec, sha256=sha256)
    entry = Store(results).teacher(teacher.identity)
    source = ImportSource(file=checkpoint, sha256=sha256, accept_poor=accept_poor)
    card = teacher_setup.import_teacher(
        teacher, source, entry, choose_execution(device, threads).configure_process()
    )
    teacher_setup.warn_about_teacher(network, teacher, card)
    print(
        f"{network}: {card.test_top1:.2f} % on {dataset}'s test set, {card.origin}, {entry.folder}"
    )
    print(f"In a study sheet:\n\n{teacher_sheet_lines(network, source)}", end="")


def _dataset_spec(name: str) -> DatasetSpec:
    try:
        return DatasetSpec(name=name)
    except ValidationError as error:
        raise StudyError(format_validation_error("--dataset", error)) from error


def _check_network(network: str, dataset: DatasetSpec) -> int:
    """Check the names of a network and a data set; return the data set's number of classes."""
    from skd.data import dataset_facts
    from skd.models import network_family

    classes = dataset_facts(dataset).num_classes
    network_family(network)
    return classes


def _load_network(checkpoint: Path, network: str, dataset: DatasetSpec) -> FeatureNetwork:
    """Return a network with a checkpoint's weights."""
    from skd.training.network_loading import build_from_state_dict
    from skd.training.state_dicts import read_state_dict

    classes = _check_network(network, dataset)
    weights = read_state_dict(checkpoint)
    return build_from_state_dict(network, classes, weights, f"{checkpoint} for {network}")
