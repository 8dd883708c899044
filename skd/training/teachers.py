"""Teachers: trained here or imported, always re-evaluated here, then frozen."""

from __future__ import annotations

import argparse
import http.client
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from skd.data import load as load_images
from skd.data.views import ViewMaker
from skd.errors import SkdError
from skd.files import sha256_of
from skd.lease import lease
from skd.models import FeatureNetwork, build_model
from skd.models.accounting import count_parameters
from skd.records import TeacherCard
from skd.sheet import Import
from skd.spec import ImportedTeacher, TrainedTeacher
from skd.store import Entry
from skd.training.evaluation import Evaluator
from skd.training.runs import LoadedTeacher, Options, complete, leave_weights


class TeacherError(SkdError):
    """A teacher is not at hand or does not fit. Says what to do."""


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


def load_teacher(entry: Entry, device: torch.device, num_classes: int) -> LoadedTeacher:
    """Return a teacher from the store: frozen, in evaluation mode, its weights verified.

    Raises:
        TeacherError: it is not at hand, or its weights are not those on its card.
    """
    card = entry.card()
    if card is None:
        raise TeacherError(f"the teacher {entry.id} is not in the store; train or import it first")
    if not entry.weights_path.is_file():
        raise TeacherError(
            f"{entry.weights_path} is not there; remove the teacher's folder, then: skd teacher"
        )
    if (found := sha256_of(entry.weights_path)) != card.sha256:
        raise TeacherError(
            f"{entry.weights_path} has sha256 {found}, its card says {card.sha256}: damaged or "
            "replaced; remove the teacher's folder, then: skd teacher"
        )
    weights = load_file(entry.weights_path)
    network = build_loaded(card.network, num_classes, weights, what=f"the teacher {entry.id}")
    return LoadedTeacher(network.to(device).eval().requires_grad_(False), card)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's weights, in the shapes the field leaves them.

    A bare state dict, or one under ``model``, ``state_dict``, ``net`` or ``student``; keys with or
    without DataParallel's ``module.``; safetensors files too. No code in the file is run.

    Raises:
        TeacherError: not such a file.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # RepDistiller saves its command-line options beside the weights: plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TeacherError(f"{path} is no checkpoint that can be read safely: {error}") from error
    for key in ("model", "state_dict", "net", "student"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        kind = (
            f"keys {', '.join(map(str, data))}" if isinstance(data, dict) else type(data).__name__
        )
        raise TeacherError(f"{path} holds no state dict (found {kind})")
    return {str(key).removeprefix("module."): value for key, value in data.items()}


def build_loaded(
    name: str, num_classes: int, weights: dict[str, Tensor], what: str
) -> FeatureNetwork:
    """Return a network with the given weights, of exactly its keys and shapes.

    Args:
        name: the network's.
        num_classes: C.
        weights: its state dict.
        what: how a message names them.

    Raises:
        TeacherError: names what is missing, what is left over, and which shapes differ.
    """
    with torch.random.fork_rng(devices=[]):  # its fresh weights are drawn for nothing
        network = build_model(name, num_classes)
    own = network.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    problems = [
        f"{title} {len(keys)}: {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}"
        for title, keys in (("missing", missing), ("unexpected", unexpected), ("shapes", shapes))
        if keys
    ]
    if problems:
        raise TeacherError(f"{what} does not fit: {'; '.join(problems)}")
    network.load_state_dict(weights)
    return network


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
