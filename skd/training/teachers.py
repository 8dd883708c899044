"""Teachers: trained here or imported, always re-evaluated here, then frozen."""

from __future__ import annotations

import http.client
import tempfile
from pathlib import Path

import torch

from skd.data import load as load_images
from skd.data.views import ViewMaker
from skd.files import sha256_of
from skd.lease import lease
from skd.models.accounting import count_parameters
from skd.records import TeacherCard
from skd.sheet import Import
from skd.spec import ImportedTeacher, TrainedTeacher
from skd.store import Entry
from skd.training.evaluation import Evaluator
from skd.training.runs import Options, complete
from skd.training.weights import TeacherError, build_loaded, leave_weights, read_state_dict


def train_teacher(spec: TrainedTeacher, entry: Entry, options: Options, label: str) -> TeacherCard:
    """Return the card of a teacher trained here, training what is left of it.

    Raises:
        RunFailedError, InterruptedRunError, LeaseHeldError, ExecutionError: as `complete`.
    """
    record = complete(spec.run, entry, options, label)
    if (card := entry.card()) is not None:
        return card
    card = TeacherCard(
        id=entry.id,
        kind="trained",
        network=spec.network,
        dataset=spec.run.dataset.name,
        origin=f"trained here, seed {spec.run.seed}, {spec.run.recipe.epochs} epochs",
        test_top1=record.last.top1,
        test_top5=record.last.top5,
        sha256=record.files[entry.weights_path.name],
        parameters=record.cost.parameters,
    )
    entry.write(card)
    return card


def import_teacher(
    spec: ImportedTeacher, source: Import, entry: Entry, device: torch.device, wait: bool = True
) -> TeacherCard:
    """Return the card of an imported teacher, importing and re-evaluating it if it is not there.

    Raises:
        TeacherError: the file is missing, is another one, or does not fit the network.
        LeaseHeldError: another process imports it, and it shall not be waited for.
    """
    if (card := entry.card()) is not None:
        return card
    with lease(entry.folder, wait=wait), tempfile.TemporaryDirectory() as scratch:
        if (card := entry.card()) is not None:
            return card
        file = _fetch(source, Path(scratch))
        if (found := sha256_of(file)) != spec.sha256:
            raise TeacherError(
                f"{file} has sha256 {found}, but {spec.sha256} was asked for: it is another file"
            )
        images = load_images(spec.dataset)
        weights, what = read_state_dict(file), f"{file} for {spec.network}"
        network = build_loaded(spec.network, images.num_classes, weights, what)
        network.to(device)
        evaluator = Evaluator(images, ViewMaker(images, device))
        logits = evaluator.logits(network)
        scores = evaluator.scores(logits)
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
            source_sha256=spec.sha256,
            parameters=count_parameters(network),
        )
        entry.write(card)
        return card


def _fetch(source: Import, scratch: Path) -> Path:
    if source.file is not None:
        if not source.file.is_file():
            raise TeacherError(f"the checkpoint {source.file} is not there; fetch it, or train one")
        return source.file
    path = scratch / "download.pth"
    try:
        torch.hub.download_url_to_file(source.url, str(path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TeacherError(f"{source.url} cannot be downloaded: {error}") from error
    return path
