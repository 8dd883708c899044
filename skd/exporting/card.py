"""The model card of an exported network: what it is, how it was trained, how to load it.

Imports no torch.
"""

from __future__ import annotations

import json
import shlex
from typing import Any, Literal

from skd.common.frozen import FrozenModel, canonical
from skd.common.wrapped_networks import network_label
from skd.store.records import Accuracy, Record, TeacherCard
from skd.study.spec import ImportedTeacher, MethodSpec, RunSpec, TrainedTeacher

PAPER = "arXiv:2305.10893"
SOURCE_KEYS = ("git_commit", "git_clean", "sources")
SOFTWARE_KEYS = ("python", "torch", "torchvision", "numpy", "gpu", "cpu")


class InputDescription(FrozenModel):
    """What the network takes: images (N, 3, H, W), scaled to [0, 1], then normalised."""

    size: int
    mean: tuple[float, ...] | None = None  # None: not known on this machine
    std: tuple[float, ...] | None = None


class ExportedFile(FrozenModel):
    """One file of an export."""

    name: str
    format: Literal["pth", "onnx"]
    sha256: str
    opset: int | None = None
    largest_difference: float | None = None  # of the logits, from PyTorch's


class ModelCard(FrozenModel):
    """The content of ``model_card.json``. Accuracies are top-1 and top-5 in percent."""

    schema_version: Literal[1] = 1
    id: str
    kind: Literal["run", "teacher"]
    names: tuple[str, ...]  # in the expanded studies
    network: str
    dataset: dict[str, Any]
    num_classes: int
    parameters: int
    input: InputDescription
    last: Accuracy | None
    best: Accuracy | None  # of another epoch than the weights, which are the last one's
    method: dict[str, Any] | None
    teacher: dict[str, Any] | None
    recipe: dict[str, Any] | None
    seed: int | None
    origin: str
    weights_sha256: str  # of the file in the store
    code: dict[str, Any]
    software: dict[str, Any]
    finished_at: str | None
    files: tuple[ExportedFile, ...]


def make_card(
    kind: Literal["run", "teacher"],
    record: Record | None,
    card: TeacherCard | None,
    spec: RunSpec | ImportedTeacher,
    **facts: Any,
) -> ModelCard:
    """Return the model card of a finished run or a teacher.

    Args:
        kind: whether the entry is a run or a teacher.
        record: its record; ``None`` for an imported teacher.
        card: its card; ``None`` for a run.
        spec: what it is.
        facts: the fields that neither has: id, names, num_classes, parameters, input,
            weights_sha256 and files.
    """
    run = spec if isinstance(spec, RunSpec) else None
    environment = record.environment if record else {}
    return ModelCard(
        kind=kind,
        network=spec.network,
        dataset=canonical(spec.dataset),
        last=record.last if record else _measured(card),
        best=record.best if record else None,
        method=_method(run.method) if run else None,
        teacher=_teacher(run, record) if run else None,
        recipe=canonical(run.recipe) if run else None,
        seed=run.seed if run else None,
        origin=card.origin if card else "trained here",
        code={key: environment[key] for key in SOURCE_KEYS if environment.get(key) is not None},
        software={key: environment[key] for key in SOFTWARE_KEYS if environment.get(key)},
        finished_at=record.finished_at if record else None,
        **facts,
    )


def _measured(card: TeacherCard | None) -> Accuracy | None:
    return card and Accuracy(epoch=0, top1=card.test_top1, top5=card.test_top5)


def _method(method: MethodSpec) -> dict[str, Any]:
    parts = [(term.term, term) for term in method.terms]
    parts += [(part.name, part) for part in method.transformations]
    return {"parts": [{"name": name, **part.settings} for name, part in parts]}


def _teacher(run: RunSpec, record: Record | None) -> dict[str, Any] | None:
    if run.teacher is None:
        return None
    teacher: dict[str, Any] = {"network": run.teacher.network, "id": run.teacher.identity}
    if record and record.teacher:
        teacher |= {"top1": record.teacher.test_top1, "origin": record.teacher.origin}
    elif isinstance(run.teacher, TrainedTeacher):
        teacher["origin"] = f"trained here, seed {run.teacher.run.seed}"
    return teacher


def card_markdown(card: ModelCard) -> str:
    """Return the model card as Markdown."""
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _rows(card))
    files = "\n".join(f"- `{file.name}`: {_file_text(file)}" for file in card.files)
    blocks = [
        f"# {network_label(card.network)} on {card.dataset['name']}",
        f"| | |\n|---|---|\n{rows}",
        f"## Files\n\n{files}",
        f"## Loading\n\n{_loading(card)}",
    ]
    for title, value in (("Method", card.method), ("Recipe", card.recipe)):
        if value:
            blocks.append(f"## {title}\n\n```json\n{json.dumps(value, indent=1)}\n```")
    blocks.append(
        f"Exported by `skd export`, from a reproduction of Student-friendly Knowledge Distillation "
        f"({PAPER})."
    )
    return "\n\n".join(blocks) + "\n"


def _rows(card: ModelCard) -> list[tuple[str, str]]:
    split = card.dataset.get("split", "test")
    rows = [("identity", f"`{card.id}`"), ("in studies", ", ".join(card.names) or "none expanded")]
    if card.last:
        epoch = f", epoch {card.last.epoch}" if card.last.epoch else ""
        name = f"accuracy of these weights ({split} images)"
        rows.append((name, f"top-1 {card.last.top1:.2f} %, top-5 {card.last.top5:.2f} %{epoch}"))
    if card.best and card.last and card.best.epoch != card.last.epoch:
        best = f"top-1 {card.best.top1:.2f} %, epoch {card.best.epoch}; its weights are not stored"
        rows.append(("best epoch", best))
    if card.method:
        rows.append(("method", " + ".join(part["name"] for part in card.method["parts"])))
    if card.teacher:
        accuracy = f", top-1 {card.teacher['top1']:.2f} %" if "top1" in card.teacher else ""
        origin = f", {card.teacher['origin']}" if "origin" in card.teacher else ""
        rows.append(("teacher", f"{network_label(card.teacher['network'])}{accuracy}{origin}"))
    rows += [("classes", str(card.num_classes)), ("parameters", f"{card.parameters:,}")]
    if card.seed is not None:
        rows.append(("seed", str(card.seed)))
    rows.append(("origin", card.origin))
    rows.append(("SHA-256 of the stored weights", f"`{card.weights_sha256}`"))
    rows += [(key, str(value)) for key, value in {**card.code, **card.software}.items()]
    if card.finished_at:
        rows.append(("finished", card.finished_at))
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _file_text(file: ExportedFile) -> str:
    text = f"SHA-256 `{file.sha256}`"
    if file.format == "onnx":
        return (
            f"ONNX, opset {file.opset}, input `images` (batch, 3, H, W), output `logits`; largest "
            f"difference from PyTorch {file.largest_difference:.1e}; {text}"
        )
    return f"PyTorch, the state dict under the key `model`; {text}"


def _loading(card: ModelCard) -> str:
    size, weights, network = card.input.size, card.files[0].name, card.network
    arguments = f'"{weights}", {json.dumps(network)}, {card.num_classes}'
    normalised = f"as the data set {card.dataset['name']} of this project normalises them"
    if card.input.mean and card.input.std:
        normalised = f"minus the mean {card.input.mean}, divided by the deviation {card.input.std}"
    return (
        f"Images are RGB, {size}x{size} pixels, scaled to [0, 1], {normalised}.\n\n"
        "```python\n"
        "from skd import library\n\n"
        f"network = library.load_network({arguments}).eval()"
        "\n```\n\n"
        f"As a teacher: `skd import-teacher {weights} --network {shlex.quote(network)} --dataset "
        f"{card.dataset['name']}`. Code of RepDistiller and mdistiller reads it by "
        f'`torch.load("{weights}")["model"]`.'
    )
