"""The protocol in words: recipe, methods and environments, from specs and records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from report.findings import Findings
from report.formats import interval, join_names, plural, signed, value_text
from report.frames.cells import SKD
from report.frames.method_variants import method_variants
from report.frames.study_frames import Frames
from report.headline import average_difference
from skd.study.expansion import Cell, Expansion
from skd.study.published import recipe_changes
from skd.study.spec import DatasetSpec, MethodSpec, Recipe

# Of this project, not the paper's: docs/assumptions.md.
ASSUMPTIONS = {
    "A1": "Softening is the log-softmax of the teacher's logits divided by the temperature.",
    "A2": "The simplifier is scaled dot-product self-attention over the samples of the batch, with "
    "the classes as features.",
    "A3": "One head as wide as the number of classes, with layer normalisation before the "
    "projections.",
    "A4": "Residual, its last projection starting at zero, so that training starts from the "
    "softened teacher.",
    "A5": "Alone, SKD has the loss of KD on the simplified teacher, with KD's weights and "
    "temperature.",
    "A6": "The simplifier is trained by the student's own optimiser, with a learning-rate "
    "multiplier.",
    "A7": "The whole batch attends, an epoch's last, smaller one too where the recipe keeps it; or "
    "groups of so many of its images, so that several GPUs can share a batch.",
    "A8": "Combined with another method, the cross-entropy counts once, with its largest weight "
    "among the parts; each distillation term keeps its own weight.",
}


@dataclass(frozen=True)
class Assumption:
    """An assumption, and the methods of this study that vary it, with their difference from SKD."""

    label: str
    text: str
    varied: tuple[str, ...]


@dataclass(frozen=True)
class MethodText:
    """A method as it was resolved; more than one text where pairs set it differently."""

    method: str
    terms: tuple[str, ...]
    simplifier: str | None
    students: tuple[str, ...]


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as a sentence."""
    nesterov = "with Nesterov" if recipe.nesterov else "no Nesterov"
    steps = "constant"
    if recipe.milestones:
        noun = "epoch" if len(recipe.milestones) == 1 else "epochs"
        after = f"{noun} {join_names([str(epoch) for epoch in recipe.milestones])}"
        steps = f"multiplied by {recipe.learning_rate_decay:g} after {after}"
    batches = f"batches of {recipe.batch_size}"
    if recipe.last_batch == "drop":
        batches += " (an epoch's last images that fill none are left out)"
    if recipe.bn_batch:
        batches += f", BatchNorm's statistics over {recipe.bn_batch} images"
    return (
        f"{plural(recipe.epochs, 'epoch')} of SGD with momentum {recipe.momentum:g} ({nesterov}), "
        f"weight decay {recipe.weight_decay:g}, {batches}; "
        f"learning rate {recipe.learning_rate:g}, {steps}"
    )


def recipe_exceptions(expansion: Expansion) -> list[str]:
    """Return who is trained by another recipe than the study's, and how it differs.

    Said of a student or of methods where it holds for all their cells, else cell by cell.
    """
    found: dict[str, list[Cell]] = {}
    for cell in expansion.cells:
        if changes := recipe_changes_text(recipe_changes(expansion.recipe, cell.spec.recipe)):
            found.setdefault(changes, []).append(cell)
    said = []
    for changes, cells in found.items():
        students = list(dict.fromkeys(cell.student for cell in cells))
        methods = list(dict.fromkeys(cell.method for cell in cells))
        if len(cells) == sum(cell.student in students for cell in expansion.cells):
            said += [f"{student}: {changes}" for student in students]
        elif len(cells) == sum(cell.method in methods for cell in expansion.cells):
            said.append(f"{', '.join(methods)}: {changes}")
        else:
            said.append(f"{', '.join(cell.key for cell in cells)}: {changes}")
    return said


def recipe_changes_text(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return changed settings, (usual, here) by name, as a phrase; nothing of none."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value_text(here)} instead of {value_text(usual)}"
        for name, (usual, here) in changes.items()
    )


def dataset_text(dataset: DatasetSpec) -> str:
    """Return what is trained on and what is evaluated."""
    limit = f"a fixed choice of {dataset.train_limit}" if dataset.train_limit else "all"
    if dataset.split == "test":
        return f"{dataset.name}: trained on {limit} training images, evaluated on the test set"
    return (
        f"{dataset.name}: trained on {limit} images of the training part, evaluated on a fixed "
        "validation split of the training images, not on the test set"
    )


def method_texts(expansion: Expansion) -> list[MethodText]:
    """Return each method's terms and settings as resolved, in the order of the sheet."""
    students: dict[tuple, dict[str, None]] = {}
    for method in expansion.methods:
        for cell in expansion.cells:
            if cell.method == method:
                key = (method, *method_settings_text(cell.spec.method))
                students.setdefault(key, {})[cell.pair.replace("--", " → ")] = None
    return [MethodText(*key, tuple(names)) for key, names in students.items()]


def distinct_record_values(frames: Frames, what: str) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each fact of the records' ``environment`` or ``execution``, with its distinct values.

    Each value comes with the number of runs that have it.
    """
    facts: dict[str, dict[str, int]] = {}
    for reading in frames.run_states.values():
        if reading.record is None:
            continue
        for name, value in _flat(getattr(reading.record, what)).items():
            counts = facts.setdefault(name, {})
            counts[value] = counts.get(value, 0) + 1
    return [
        (name, sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        for name, counts in facts.items()
    ]


def assumptions(findings: Findings) -> list[Assumption]:
    """Return A1 to A8 with what this study's ablation says of each."""
    varied: dict[str, dict[str, None]] = {}
    for pair in findings.pairs:
        for variant in method_variants(findings.expansion, pair.teacher.name, pair.student, SKD):
            for label in variant.assumptions:
                varied.setdefault(label, {})[variant.method] = None
    found = []
    for label, text in ASSUMPTIONS.items():
        said = []
        for method in varied.get(label, {}):
            average = average_difference(findings.pairs, method, SKD)
            result = (
                f"{signed(average.difference.mean)} ({interval(average.difference)})"
                if average
                else "not run"
            )
            said.append(f"{method} {result}")
        found.append(Assumption(label, text, tuple(said)))
    return found


def method_settings_text(method: MethodSpec) -> tuple[tuple[str, ...], str | None]:
    """Return a method's terms with their settings, and its simplifier's settings or none."""
    terms = tuple(f"{term.term} ({value_text(term.settings)})" for term in method.terms)
    simplifier = value_text(method.simplifier.settings) if method.simplifier else None
    return terms, simplifier


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value_text(value)
    return flat
