"""Teachers: trained here or imported, always re-evaluated here, then frozen."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import torch

from skd.files import sha256_of
from skd.lease import lease
from skd.leftovers import leftovers, remove, tidy
from skd.models.accounting import count_parameters
from skd.records import Record, TeacherCard
from skd.sheet import Import
from skd.spec import ImportedTeacher, TrainedTeacher
from skd.store import Entry, Store
from skd.study import TeacherNode
from skd.training.materials import Materials
from skd.training.runs import Options, complete
from skd.training.weights import TeacherError, build_loaded, leave_weights, read_state_dict


def ready_teacher(
    node: TeacherNode, store: Store, options: Options, materials: Materials
) -> TeacherCard:
    """Return a study's teacher's card, training or importing it where it is not there; print it.

    Raises:
        TeacherError, LeaseHeldError: as `import_teacher`.
        RunFailedError, InterruptedRunError, ExecutionError: as `train_teacher`.
    """
    entry, team = store.teacher(node.id), options.division.team
    if node.spec.kind == "trained":
        card = train_teacher(node.spec, entry, options, f"teacher {node.name}", materials)
    else:
        device = options.execution.apply()
        card = team.told(
            lambda: import_teacher(
                node.spec, node.source, entry, device, options.wait, materials, options.stopping
            )
        )
    if team.rank == 0:
        measured = f"{card.test_top1:.2f} % on the {node.spec.dataset.split} images"
        print(f"teacher {node.name}: {measured}, {entry.folder}")
    return card


def train_teacher(
    spec: TrainedTeacher,
    entry: Entry,
    options: Options,
    label: str,
    materials: Materials | None = None,
) -> TeacherCard:
    """Return the card of a teacher trained here, training what is left of it.

    Raises:
        RunFailedError, InterruptedRunError, LeaseHeldError, ExecutionError: as `complete`.
    """
    record = complete(spec.run, entry, options, label, materials=materials)
    return options.division.team.told(lambda: _card_of(record, spec, entry))


def _card_of(record: Record, spec: TrainedTeacher, entry: Entry) -> TeacherCard:
    if (card := entry.card()) is not None:
        return card
    with lease(entry.folder, wait=True):
        return _leave_card(record, spec, entry)


def _leave_card(record: Record, spec: TrainedTeacher, entry: Entry) -> TeacherCard:
    card = TeacherCard(
        id=entry.id,
        kind="trained",
        network=spec.network,
        dataset=spec.dataset.name,
        origin=f"trained here, seed {spec.run.seed}, {spec.run.recipe.epochs} epochs",
        test_top1=record.last.top1,
        test_top5=record.last.top5,
        sha256=record.files[entry.weights_path.name],
        parameters=record.cost.parameters,
    )
    entry.write(card)
    return card


def import_teacher(
    spec: ImportedTeacher,
    source: Import,
    entry: Entry,
    device: torch.device,
    wait: bool = True,
    materials: Materials | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> TeacherCard:
    """Return the card of an imported teacher, importing and re-evaluating it if it is not there.

    Raises:
        InterruptedRunError: asked to stop while another process imports it.
        TeacherError: the file is missing, is another one, or does not fit the network.
        LeaseHeldError: another process imports it, and it shall not be waited for.
    """
    entry.check_place()
    if (card := entry.card()) is not None:
        tidy(entry)
        return card
    held = lease(entry.folder, wait=wait, stopping=stopping)
    with held, tempfile.TemporaryDirectory() as scratch:
        if (card := entry.card()) is not None:
            return card
        file = _fetch(source, Path(scratch))
        if not (found := sha256_of(file)).startswith(spec.sha256):
            raise TeacherError(
                f"{file} has sha256 {found}, but {spec.sha256} was asked for: it is another file"
            )
        material = (materials or Materials()).data(spec.dataset, device)
        images = material.images
        weights, what = read_state_dict(file), f"{file} for {spec.network}"
        network = build_loaded(spec.network, images.num_classes, weights, what)
        network.to(device)
        logits = material.tests.logits(network)
        scores = material.tests.scores(logits)
        files = leave_weights(entry, network, logits)
        card = TeacherCard(
            id=entry.id,
            kind="imported",
            network=spec.network,
            dataset=spec.dataset.name,
            origin=source.url or f"imported from {source.file.name}",
            test_top1=scores.top1,
            test_top5=scores.top5,
            sha256=files[entry.weights_path.name],
            source_sha256=found,
            parameters=count_parameters(network),
        )
        entry.write(card)
        remove(leftovers(entry))
        return card


def _fetch(source: Import, scratch: Path) -> Path:
    """Return the checkpoint's file: the one given, the one in torch.hub's folder, or a download."""
    if source.file is not None:
        if not source.file.is_file():
            raise TeacherError(f"the checkpoint {source.file} is not there; fetch it, or train one")
        return source.file
    name = Path(urlsplit(source.url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.is_file():
        return cached
    path = scratch / "download.pth"
    try:
        torch.hub.download_url_to_file(source.url, str(path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TeacherError(
            f"{source.url} cannot be downloaded: {error}. Where there is no network, fetch it "
            f"elsewhere and put it at {cached}"
        ) from error
    return path
