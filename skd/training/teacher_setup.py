"""Teachers: trained or imported, evaluated on the test images, then frozen."""

from __future__ import annotations

import http.client
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import torch

from skd.common.errors import TeacherError
from skd.common.files import sha256_of
from skd.common.lease import hold_lease
from skd.common.wrapped_networks import network_label
from skd.data import dataset_facts
from skd.models.accounting import count_parameters
from skd.store.leftovers import leftover_files, remove_files, remove_leftovers
from skd.store.records import Record, TeacherCard
from skd.store.store import Store, StoreEntry
from skd.store.teacher_accuracy import accuracy_doubts, poor_accuracy_text
from skd.study.expansion import TeacherNode
from skd.study.published import PublishedError
from skd.study.sheet import ImportSource
from skd.study.spec import ImportedTeacher, TeacherSpec, TrainedTeacher
from skd.training.file_kinds import DOWNLOAD_AGAIN, describe_file
from skd.training.network_loading import build_from_state_dict
from skd.training.resources import Resources
from skd.training.runs import RunOptions, complete_run
from skd.training.state_dicts import describe_precision, read_state_dict
from skd.training.weights import save_weights


def ensure_teacher(
    node: TeacherNode, store: Store, options: RunOptions, resources: Resources
) -> TeacherCard:
    """Return the card of a study's teacher and print it. A missing teacher is trained or imported.

    Raises:
        TeacherError, LeaseHeldError: as `import_teacher`.
        RunFailedError, InterruptedRunError, ExecutionError: as `train_teacher`.
    """
    entry, team = store.teacher(node.id), options.partition.team
    if node.spec.kind == "trained":
        card = train_teacher(node.spec, entry, options, f"teacher {node.name}", resources)
    else:
        device = options.execution.configure_process()
        card = team.broadcast(
            lambda: import_teacher(
                node.spec, node.source, entry, device, options.wait, resources, options.should_stop
            )
        )
    if team.rank == 0:
        measured = f"{card.test_top1:.2f} % on the {node.spec.dataset.split} images"
        print(f"teacher {node.name}: {measured}, {entry.folder}")
        warn_about_teacher(node.name, node.spec, card)
    return card


def warn_about_teacher(name: str, spec: TeacherSpec, card: TeacherCard) -> None:
    """Print warnings about a teacher's accuracy on standard error, if there are any."""
    try:
        doubts = accuracy_doubts(spec, card.test_top1, dataset_facts(spec.dataset).num_classes)
    except PublishedError as error:  # the report raises it; training continues
        doubts = [f"it is not compared with published accuracies: {error}"]
    for doubt in doubts:
        print(f"warning: teacher {name}: {doubt}", file=sys.stderr, flush=True)


def train_teacher(
    spec: TrainedTeacher,
    entry: StoreEntry,
    options: RunOptions,
    label: str,
    resources: Resources | None = None,
) -> TeacherCard:
    """Return the card of a trained teacher. What is missing is trained first.

    Raises:
        RunFailedError, InterruptedRunError, LeaseHeldError, ExecutionError: as `complete_run`.
    """
    record = complete_run(spec.run, entry, options, label, resources=resources)
    return options.partition.team.broadcast(lambda: _card_of(record, spec, entry))


def _card_of(record: Record, spec: TrainedTeacher, entry: StoreEntry) -> TeacherCard:
    if (card := entry.card()) is not None:
        return card
    with hold_lease(entry.folder, wait=True):
        return _write_card(record, spec, entry)


def _write_card(record: Record, spec: TrainedTeacher, entry: StoreEntry) -> TeacherCard:
    card = TeacherCard(
        id=entry.id,
        kind="trained",
        network=spec.network,
        dataset=spec.dataset.name,
        origin=f"{spec.origin}, {spec.run.recipe.epochs} epochs",
        test_top1=record.last.top1,
        test_top5=record.last.top5,
        sha256=record.files[entry.weights_path.name],
        parameters=record.cost.parameters,
        partner=spec.run.partner,
    )
    entry.write(card)
    return card


def import_teacher(
    spec: ImportedTeacher,
    source: ImportSource,
    entry: StoreEntry,
    device: torch.device,
    wait: bool = True,
    resources: Resources | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TeacherCard:
    """Return the card of an imported teacher. A missing teacher is imported and evaluated first.

    Raises:
        InterruptedRunError: ``should_stop`` returned true while another process imports it.
        TeacherError: the file is missing, is not the expected one, cannot be read or does not fit
            the network; or values are not finite, or the accuracy is poor and the source does not
            accept that.
        LeaseHeldError: another process imports it, and ``wait`` is false.
    """
    entry.check_link()
    if (card := entry.card()) is not None:
        remove_leftovers(entry)
    else:
        held = hold_lease(entry.folder, wait=wait, should_stop=should_stop)
        with held, tempfile.TemporaryDirectory() as scratch:
            if (card := entry.card()) is None:
                card = _import(spec, source, entry, device, resources or Resources(), Path(scratch))
                remove_files(leftover_files(entry))
                return card
    _check_accuracy(f"the teacher {entry.folder}", card.test_top1, spec, source)
    return card


def _import(
    spec: ImportedTeacher,
    source: ImportSource,
    entry: StoreEntry,
    device: torch.device,
    resources: Resources,
    scratch: Path,
) -> TeacherCard:
    file, name = _fetch(source, scratch)
    if not (sha256 := sha256_of(file)).startswith(spec.sha256):
        what = describe_file(file) or f"another file, or an incomplete one; {DOWNLOAD_AGAIN}"
        raise TeacherError(
            f"{name} has sha256 {sha256}, but {spec.sha256} was expected: it is {what}"
        )
    weights, classes = read_state_dict(file), dataset_facts(spec.dataset).num_classes
    network = build_from_state_dict(
        spec.network, classes, weights, f"{name} for {network_label(spec.network)}"
    ).to(device)
    evaluator = resources.dataset(spec.dataset, device).evaluator
    logits = evaluator.logits(network)
    if images := int((~logits.isfinite()).any(dim=1).sum()):
        raise TeacherError(
            f"{name} for {network_label(spec.network)} cannot be used: its logits are not finite "
            f"on {images} of {len(logits)} test images, though its weights are; use the original "
            "weights, not converted ones"
        )
    scores = evaluator.scores(logits)
    _check_accuracy(f"{name} for {network_label(spec.network)}", scores.top1, spec, source)
    origin = source.url or f"imported from {source.file.name}"
    if precision := describe_precision(weights):
        origin += f", converted from {precision}"
    files = save_weights(entry, network, logits)
    card = TeacherCard(
        id=entry.id,
        kind="imported",
        network=spec.network,
        dataset=spec.dataset.name,
        origin=origin,
        test_top1=scores.top1,
        test_top5=scores.top5,
        sha256=files[entry.weights_path.name],
        source_sha256=sha256,
        parameters=count_parameters(network),
    )
    entry.write(card)
    return card


def _check_accuracy(what: str, top1: float, spec: ImportedTeacher, source: ImportSource) -> None:
    """Check that a teacher is better than chance, unless its source accepts a poor one.

    Raises:
        TeacherError: it is not. Says how to accept it.
    """
    problem = poor_accuracy_text(top1, dataset_facts(spec.dataset).num_classes)
    if problem and not source.accept_poor:
        raise TeacherError(
            f"{what} is a poor teacher: {problem}. Check that weights, network and data "
            "set belong together. To use it nevertheless: skd import-teacher --accept-poor, or in "
            "a sheet's import: accept_poor: true"
        )


def check_checkpoint_file(path: Path) -> None:
    """Check that a checkpoint is a file.

    Raises:
        TeacherError: it is missing, or it is a folder. Says what to do.
    """
    if path.is_dir():
        raise TeacherError(f"{path} is no checkpoint: it is {describe_file(path)}")
    if not path.is_file():
        raise TeacherError(f"the checkpoint {path} does not exist; download it, or train a teacher")


def _fetch(source: ImportSource, scratch: Path) -> tuple[Path, str]:
    """Return the file of the checkpoint, and its name for messages.

    It is the given file, a file in the folder of torch.hub, or a download.
    """
    if source.file is not None:
        check_checkpoint_file(source.file)
        return source.file, str(source.file)
    name = Path(urlsplit(source.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if name and cached.is_file():
        return cached, str(cached)
    path = scratch / "download.pth"
    try:
        torch.hub.download_url_to_file(source.url, str(path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TeacherError(
            f"{source.url} cannot be downloaded: {error}. Without a network, download it "
            f"on another machine and copy it to {cached}"
        ) from error
    return path, source.url
