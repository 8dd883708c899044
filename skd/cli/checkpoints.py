"""The commands `skd evaluate` and `skd import-teacher`. Torch is imported when they run."""

from __future__ import annotations

import os
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
from skd.common.errors import SkdError
from skd.store.store import Store
from skd.study.sheet import StudyError, format_validation_error
from skd.study.spec import DatasetSpec

if TYPE_CHECKING:
    import torch

    from skd.models import FeatureNetwork


CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")


class EvaluateError(SkdError, ValueError):
    """The arguments do not say what to evaluate. The message says what is needed."""


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|RUN",
            help="a checkpoint file (.pth, .pt or .safetensors, with --network); or a finished run "
            "or teacher: an identity or its first characters, STUDY/PAIR/METHOD/SEED, or "
            "STUDY/TEACHER",
        ),
    ],
    network: Annotated[
        str | None,
        typer.Option(help="the architecture in a checkpoint file; `skd list networks` lists them"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="the data set for a checkpoint file; `skd list datasets` lists them [cifar100]"
        ),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure a checkpoint's or a finished run's accuracy on the test images of its data set.

    The network and the data set of a run are those of its record. The output compares the
    accuracy with the recorded one.
    """
    is_file = network is not None or _names_a_file(checkpoint)
    if is_file and network is None:
        raise EvaluateError(
            f"{checkpoint} is a checkpoint file, which does not say its architecture: add "
            "--network NAME; skd list networks lists them"
        )
    if not is_file and dataset is not None:
        raise EvaluateError(f"run {checkpoint} has its own data set: leave out --dataset")
    if is_file:
        _evaluate_file(Path(checkpoint), network, dataset or "cifar100", device, threads)
    else:
        _evaluate_run(checkpoint, results, device, threads)


def _names_a_file(text: str) -> bool:
    """Return whether an argument is a checkpoint's path and not the name of a run."""
    return text.endswith(CHECKPOINT_SUFFIXES) or os.path.isfile(text)  # noqa: PTH113  never raises


def _evaluate_file(
    checkpoint: Path, network: str, dataset: str, device: str, threads: int | None
) -> None:
    from skd.training.execution import choose_execution

    torch_device = choose_execution(device, threads).configure_process()
    spec = _dataset_spec(dataset)
    # Arguments are checked before the data set is downloaded.
    model = _load_network(checkpoint, network, spec)
    print(_measure(model, network, spec, torch_device)[0])


def _evaluate_run(run: str, results: Path, device: str, threads: int | None) -> None:
    from skd.cli.export import find_source
    from skd.common.wrapped_networks import network_label
    from skd.exporting.export import load_stored_network
    from skd.training.execution import choose_execution

    source = find_source(run, results)
    torch_device = choose_execution(device, threads).configure_process()
    model, _ = load_stored_network(source)
    name = network_label(source.spec.network)
    text, top1 = _measure(model, name, source.spec.dataset, torch_device)
    recorded = source.record.last.top1 if source.record else source.card.test_top1
    same = f"{top1:.2f}" == f"{recorded:.2f}"
    print(f"{source.kind} {source.entry.id}: {text}")
    print(f"recorded: top-1 {recorded:.2f} %{', the same' if same else ''}")
    if not same:
        print(f"measured now: {top1 - recorded:+.2f} points from the record")


def _measure(
    model: FeatureNetwork, name: str, dataset: DatasetSpec, device: torch.device
) -> tuple[str, float]:
    """Return a network's scores on the test images as a line, and its top-1 in percent."""
    from skd.training.resources import Resources

    evaluator = Resources().dataset(dataset, device).evaluator
    scores = evaluator.scores(evaluator.logits(model.to(device)))
    line = (
        f"{name} on {dataset.name}: top-1 {scores.top1:.2f} %, top-5 {scores.top5:.2f} %, "
        f"cross-entropy {scores.loss:.4f}, {len(evaluator.labels)} test images"
    )
    return line, scores.top1


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
