"""Export of a finished run's student, or of a teacher, from the store."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from skd.common.errors import SkdError
from skd.common.files import sha256_of, write_atomically, write_json
from skd.common.wrapped_networks import network_label
from skd.data import dataset_facts, load_dataset
from skd.data.images import DataError
from skd.data.photos.folders import MEAN, STD
from skd.exporting.card import ExportedFile, InputDescription, ModelCard, card_markdown, make_card
from skd.exporting.onnx_file import write_onnx
from skd.losses.methods import classifier_terms
from skd.models import FeatureNetwork
from skd.models.accounting import count_parameters
from skd.store.records import Record, TeacherCard
from skd.store.store import StoreEntry
from skd.study.spec import DatasetSpec, ImportedTeacher, RunSpec
from skd.training.network_loading import build_from_state_dict
from skd.training.state_dicts import read_state_dict


class ExportError(SkdError):
    """A run or teacher cannot be exported. The message says why, and what to do."""


@dataclass(frozen=True)
class Source:
    """A finished run or a teacher in the store.

    Attributes:
        kind: run or teacher.
        entry: its folder.
        spec: what it is.
        record: its record; ``None`` for an imported teacher.
        card: its card; ``None`` for a run.
        names: its names in the expanded studies.
    """

    kind: Literal["run", "teacher"]
    entry: StoreEntry
    spec: RunSpec | ImportedTeacher
    record: Record | None
    card: TeacherCard | None
    names: tuple[str, ...] = ()


def export(source: Source, folder: Path, onnx: bool = False) -> ModelCard:
    """Write the weights of a network and its model card to a folder; return the card.

    The files are ``NETWORK.pth``, ``model_card.json`` and ``model_card.md``, and with ``onnx``
    ``NETWORK.onnx``. Existing files with these names are replaced.

    Args:
        source: the run or teacher.
        folder: where to write; it is created.
        onnx: whether to write an ONNX file, too.

    Raises:
        ExportError: the weights are missing or damaged, or the network alone is not the model.
        MissingExtraError: ONNX needs packages that are not installed.
    """
    network, sha256 = load_stored_network(source)
    classes = dataset_facts(source.spec.dataset).num_classes
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_stem(source.spec.network)
    files = [_write_weights(network, source, folder / f"{stem}.pth")]
    size = dataset_facts(source.spec.dataset).size
    if onnx:
        files.append(write_onnx(network, size, folder / f"{stem}.onnx"))
    card = make_card(
        source.kind,
        source.record,
        source.card,
        source.spec,
        id=source.entry.id,
        names=source.names,
        num_classes=classes,
        parameters=count_parameters(network),
        input=_input(source.spec.dataset, size),
        weights_sha256=sha256,
        files=tuple(files),
    )
    write_json(folder / "model_card.json", card.model_dump(mode="json"))
    write_atomically(folder / "model_card.md", card_markdown(card).encode())
    return card


def load_stored_network(source: Source) -> tuple[FeatureNetwork, str]:
    """Return the network with its stored weights, in evaluation mode, and their SHA-256.

    Raises:
        ExportError: the weights are missing or damaged, or the network alone is not the model.
    """
    _check_classifier(source)
    sha256 = _check_weights(source)
    network = build_from_state_dict(
        source.spec.network,
        dataset_facts(source.spec.dataset).num_classes,
        load_file(source.entry.weights_path),
        what=str(source.entry.weights_path),
    )
    return network.eval(), sha256


def file_stem(network: str) -> str:
    """Return a network's name as the name of a file, without its suffix."""
    label = network_label(network)
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)
    return kept.strip("-.")[:80] or "network"


def _check_weights(source: Source) -> str:
    """Return the SHA-256 of the stored weights, after comparing it with the record or card."""
    path = source.entry.weights_path
    recorded = source.card.sha256 if source.card else source.record.files[path.name]
    if not path.is_file():
        raise ExportError(f"{path} is not there; copy it, or move the folder away and train again")
    if (actual := sha256_of(path)) != recorded:
        raise ExportError(
            f"{path} has sha256 {actual}, but {recorded} is recorded: it is damaged or replaced; "
            "copy it again, or move the folder away and train again"
        )
    return actual


def _check_classifier(source: Source) -> None:
    """Check that the network's own logits are those whose accuracy is recorded."""
    if not isinstance(source.spec, RunSpec):
        return
    for term in classifier_terms(source.spec.method):
        raise ExportError(
            f"{term} replaces the student's classifier, so the network alone does not have the "
            f"recorded accuracy; its parts are {source.entry.weights_path.name} and "
            f"{source.entry.objective_path.name} in {source.entry.folder}"
        )


def _write_weights(network: FeatureNetwork, source: Source, path: Path) -> ExportedFile:
    """Write a checkpoint as the field's code reads it, and read it back to check it."""
    content = {"model": {name: tensor.clone() for name, tensor in network.state_dict().items()}}
    if source.record:
        content |= {"epoch": source.record.last.epoch, "accuracy": source.record.last.top1}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
    written = read_state_dict(path)
    if not all(torch.equal(written[name], t) for name, t in content["model"].items()):
        raise ExportError(f"{path} does not have the weights that were written; is the disk full?")
    return ExportedFile(name=path.name, format="pth", sha256=sha256_of(path))


def _input(dataset: DatasetSpec, size: int) -> InputDescription:
    """Return the size and the normalisation of a data set's images, as far as they are known."""
    if dataset_facts(dataset).photos:
        return InputDescription(size=size, mean=MEAN, std=STD)
    try:
        images = load_dataset(dataset)
    except DataError:
        return InputDescription(size=size)
    return InputDescription(size=size, mean=images.mean, std=images.std)
