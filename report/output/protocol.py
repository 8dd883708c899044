"""The report's description of the protocol: recipe, methods and assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from report.findings import Findings
from report.formats import interval, join_names, plural, signed, value_text
from report.frames.averages import average_difference
from report.frames.cells import SKD
from report.frames.method_variants import method_variants
from skd.study.expansion import Cell, Expansion
from skd.study.published import recipe_changes
from skd.study.spec import DatasetSpec, MethodSpec, Recipe

# Assumptions of this project, not the paper's: docs/assumptions.md.
ASSUMPTIONS = {
    "A1": "Softening is the log-softmax of the teacher's logits divided by the temperature.",
    "A2": "The simplifier is scaled dot-product self-attention over the samples of the batch, with "
    "the classes as features.",
    "A3": "The simplifier has one attention head, as wide as the number of classes, with layer "
    "normalisation before the projections.",
    "A4": "The simplifier is a residual block. Its last projection is initialised to zero, so "
    "training starts from the softened teacher.",
    "A5": "SKD alone has the loss of KD on the simplified teacher, with KD's weights and "
    "temperature.",
    "A6": "The student's optimiser also trains the simplifier, with a learning-rate multiplier.",
    "A7": "The attention covers the whole batch, including a smaller last batch of an epoch if the "
    "recipe keeps it. It can be limited to groups of a fixed number of images, so that several "
    "GPUs can share a batch.",
    "A8": "In a combination with another method, the cross-entropy counts once, with the largest "
    "of its weights in the parts. Each distillation term keeps its weight. Exception: SKD + DKD is "
    "DKD on the simplified teacher, without a KD term.",
}


@dataclass(frozen=True)
class Assumption:
    """An assumption, with the study's methods that vary it and their difference from SKD."""

    label: str
    text: str
    varied: tuple[str, ...]


@dataclass(frozen=True)
class MethodText:
    """The resolved settings of a method, with the pairs or students that have them."""

    method: str
    terms: tuple[str, ...]
    transformations: tuple[str, ...]
    students: tuple[str, ...]


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as a phrase."""
    batches = f"batches of {recipe.batch_size}"
    if recipe.last_batch == "drop":
        batches += " (an incomplete last batch of an epoch is dropped)"
    if recipe.bn_batch:
        batches += f", BatchNorm statistics over {recipe.bn_batch} images"
    return (
        f"{plural(recipe.epochs, 'epoch')} of {_optimizer_text(recipe)}, "
        f"weight decay {recipe.weight_decay:g}, {batches}; "
        f"learning rate {recipe.learning_rate:g}, {_schedule_text(recipe)}"
    )


def _optimizer_text(recipe: Recipe) -> str:
    if recipe.optimizer == "adamw":
        betas = join_names([f"{beta:g}" for beta in recipe.betas])
        return f"AdamW with betas {betas} and eps {recipe.eps:g}"
    nesterov = "with Nesterov" if recipe.nesterov else "without Nesterov"
    return f"SGD with momentum {recipe.momentum:g} ({nesterov})"


def _schedule_text(recipe: Recipe) -> str:
    schedule = "constant"
    if recipe.schedule == "cosine":
        schedule = f"decayed by half a cosine towards {recipe.minimum_learning_rate:g}"
    elif recipe.milestones:
        noun = "epoch" if len(recipe.milestones) == 1 else "epochs"
        milestones = f"{noun} {join_names([str(epoch) for epoch in recipe.milestones])}"
        schedule = f"multiplied by {recipe.learning_rate_decay:g} after {milestones}"
    if recipe.warmup_epochs:
        schedule += f", after a linear warm-up of {plural(recipe.warmup_epochs, 'epoch')}"
    return schedule


def recipe_exceptions(expansion: Expansion) -> list[str]:
    """Return the differences of cells whose recipe is not the study's.

    A difference is listed by student or by method if it applies to all their cells, and by cell
    otherwise.
    """
    by_changes: dict[str, list[Cell]] = {}
    for cell in expansion.cells:
        if changes := recipe_changes_text(recipe_changes(expansion.recipe, cell.spec.recipe)):
            by_changes.setdefault(changes, []).append(cell)
    texts = []
    for changes, cells in by_changes.items():
        students = list(dict.fromkeys(cell.student for cell in cells))
        methods = list(dict.fromkeys(cell.method for cell in cells))
        if len(cells) == sum(cell.student in students for cell in expansion.cells):
            texts += [f"{student}: {changes}" for student in students]
        elif len(cells) == sum(cell.method in methods for cell in expansion.cells):
            texts.append(f"{', '.join(methods)}: {changes}")
        else:
            texts.append(f"{', '.join(cell.key for cell in cells)}: {changes}")
    return texts


def recipe_changes_text(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return changed settings, given as (usual value, value) by name, as a phrase."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value_text(value)} instead of {value_text(usual)}"
        for name, (usual, value) in changes.items()
    )


def dataset_text(dataset: DatasetSpec) -> str:
    """Return the data set with its training and evaluation images, as a phrase."""
    limit = f"a fixed subset of {dataset.train_limit:,}" if dataset.train_limit else "all"
    if dataset.split == "test":
        return f"{dataset.name}: trained on {limit} training images, evaluated on the test set"
    return (
        f"{dataset.name}: trained on {limit} images of the training part, evaluated on a fixed "
        "validation split of the training images, not on the test set"
    )


def method_texts(expansion: Expansion) -> list[MethodText]:
    """Return each method's resolved terms and settings, in the order of the sheet."""
    students: dict[tuple, dict[str, None]] = {}
    for method in expansion.methods:
        for cell in expansion.cells:
            if cell.method == method:
                key = (method, *method_settings_text(cell.spec.method))
                students.setdefault(key, {})[_pair_text(cell)] = None
    return [MethodText(*key, tuple(names)) for key, names in students.items()]


def _pair_text(cell: Cell) -> str:
    """Return a cell's pair, with its teacher if that is another one than the pair's."""
    teacher = cell.pair.split("--")[0]
    own = cell.teacher not in (None, teacher)
    return cell.pair.replace("--", " → ") + (f" (teacher {cell.teacher})" if own else "")


def assumptions(findings: Findings) -> list[Assumption]:
    """Return A1 to A8 with the results of this study's ablation."""
    varied: dict[str, dict[str, None]] = {}
    for pair in findings.pairs:
        for variant in method_variants(findings.expansion, pair.teacher.name, pair.student, SKD):
            for label in variant.assumptions:
                varied.setdefault(label, {})[variant.method] = None
    return [
        Assumption(
            label,
            text,
            tuple(f"{m} {_difference_from_skd(findings, m)}" for m in varied.get(label, {})),
        )
        for label, text in ASSUMPTIONS.items()
    ]


def _difference_from_skd(findings: Findings, method: str) -> str:
    average = average_difference(findings.pairs, method, SKD)
    if average is None:
        return "not run"
    return f"{signed(average.difference.mean)} ({interval(average.difference)})"


def method_settings_text(method: MethodSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a method's terms and its transformations, both with their settings."""
    terms = tuple(f"{term.term} ({value_text(term.settings)})" for term in method.terms)
    transformations = tuple(
        f"{part.name} ({value_text(part.settings)})" for part in method.transformations
    )
    return terms, transformations
