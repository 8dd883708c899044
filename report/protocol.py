"""The protocol in words: recipe, methods and environments, from specs and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from report.formats import listing, plural, value_text
from report.frame import Frames
from skd.spec import DatasetSpec, MethodSpec, Recipe
from skd.study import Expansion


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
        after = f"{noun} {listing([str(epoch) for epoch in recipe.milestones])}"
        steps = f"multiplied by {recipe.learning_rate_decay:g} after {after}"
    return (
        f"{plural(recipe.epochs, 'epoch')} of SGD with momentum {recipe.momentum:g} ({nesterov}), "
        f"weight decay {recipe.weight_decay:g}, batches of {recipe.batch_size}; "
        f"learning rate {recipe.learning_rate:g}, {steps}"
    )


def recipe_exceptions(expansion: Expansion) -> list[str]:
    """Return which students are trained by another recipe than the study's, and how it differs."""
    found: dict[str, None] = {}
    for cell in expansion.cells:
        if changes := recipe_changes(expansion.recipe, cell.spec.recipe):
            found[f"{cell.student}: {changes}"] = None
    return list(found)


def recipe_changes(usual: Recipe, other: Recipe) -> str:
    """Return in what one recipe differs from another, or nothing."""
    before, after = usual.model_dump(), other.model_dump()
    return ", ".join(
        f"{name.replace('_', ' ')} {value_text(after[name])} instead of {value_text(before[name])}"
        for name in after
        if after[name] != before[name]
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
                key = (method, *_texts(cell.spec.method))
                students.setdefault(key, {})[cell.pair.replace("--", " → ")] = None
    return [MethodText(*key, tuple(names)) for key, names in students.items()]


def distinct_values(frames: Frames, what: str) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return each fact of the records' ``environment`` or ``execution``, with its distinct values.

    Each value comes with the number of runs that have it.
    """
    facts: dict[str, dict[str, int]] = {}
    for reading in frames.readings.values():
        if reading.record is None:
            continue
        for name, value in _flat(getattr(reading.record, what)).items():
            counts = facts.setdefault(name, {})
            counts[value] = counts.get(value, 0) + 1
    return [
        (name, sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        for name, counts in facts.items()
    ]


def number_of_classes(frames: Frames) -> int | None:
    """Return the number of classes that the records name, or none."""
    found = {
        reading.record.num_classes
        for reading in frames.readings.values()
        if reading.record is not None
    }
    return found.pop() if len(found) == 1 else None


def _texts(method: MethodSpec) -> tuple[tuple[str, ...], str | None]:
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
