"""The analysis of a study, assembled from its cached or new results."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from skd.analyses import cached_results
from skd.analyses.cache import AnalysisCache, write_analysis
from skd.analyses.errors import UnusableError
from skd.analyses.inventory import Inventory, ProgressTracker
from skd.analyses.records import (
    Analysis,
    Embedding,
    EmbeddingPanel,
    RunMeasures,
    SimplifierExample,
)
from skd.analyses.stored_networks import StoredNetwork
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion


def analyse_study(
    expansion: Expansion,
    results: Path,
    features: Collection[str] | None = None,
    track: ProgressTracker = lambda items, _: items,
) -> Analysis:
    """Analyse a study's finished runs, write the analysis, and return it.

    Results of the study's last analysis are reused. Weights and logits that cannot be used, because
    they are missing, damaged or of other images, are named in `skipped`.

    Args:
        expansion: the study.
        results: the folder of its runs and its analysis.
        features: the methods whose features are shown beside the teacher's. ``None``: those of
            `Expansion.figure_methods`.
        track: shows progress; is called with the items of a loop and the loop's name.

    Raises:
        DataError: the data set is needed, and missing.
    """
    cache = AnalysisCache.read(results, expansion.study, expansion.dataset)
    inventory = Inventory(expansion, Store(results))
    analysis = Analysis(
        study=expansion.study,
        dataset=expansion.dataset,
        teachers={
            inventory.teachers[name].id: cached_results.teacher_measures(inventory, cache, name)
            for name in inventory.teacher_logits
        },
        runs=_runs(inventory, cache, track),
        correlations=_correlations(inventory, cache, track),
        embeddings=_embeddings(
            inventory, cache, expansion.figure_methods if features is None else features, track
        ),
        examples=_examples(inventory, cache, track),
        classes=cache.previous.classes if cache.previous else inventory.images.classes,
        skipped=inventory.skipped,
        altered=inventory.altered_files(track),
    )
    write_analysis(analysis, cache.arrays, results)
    return analysis


def _runs(
    inventory: Inventory, cache: AnalysisCache, track: ProgressTracker
) -> dict[str, RunMeasures]:
    measures = {}
    for cell in track(inventory.expansion.cells, "test logits"):
        for _, run in inventory.finished_runs(cell):
            try:
                measures[run.id] = cached_results.run_measures(inventory, cache, run, cell.teacher)
            except UnusableError as error:
                inventory.skip(run.id, error)
    return measures


def _correlations(
    inventory: Inventory, cache: AnalysisCache, track: ProgressTracker
) -> dict[str, str]:
    def correlation_key(_: int | None, network: StoredNetwork) -> str:
        return cached_results.correlation_key(inventory, cache, network)

    teachers = [inventory.teachers[name] for name in inventory.teacher_logits]
    keys = {teacher.id: correlation_key(None, teacher) for teacher in teachers}
    for cell in track(inventory.expansion.cells, "correlations"):
        first = inventory.first_result(cell, correlation_key)
        if first is not None:
            keys[first.run.id] = first.value
    return keys


def _embeddings(
    inventory: Inventory, cache: AnalysisCache, features: Collection[str], track: ProgressTracker
) -> dict[str, Embedding]:
    expansion = inventory.expansion
    embeddings = {}
    for teacher, student in track(expansion.pairs, "features"):
        panels = _teacher_panel(inventory, cache, teacher)
        for method in expansion.methods_of(teacher, student):
            if method in features:
                panels += _student_panel(
                    inventory, cache, expansion.cell_of(teacher, student, method)
                )
        if panels:
            labels = cached_results.embedding_labels_key(inventory, cache)
            embeddings[f"{teacher}--{student}"] = Embedding(labels=labels, panels=tuple(panels))
    return embeddings


def _teacher_panel(inventory: Inventory, cache: AnalysisCache, name: str) -> list[EmbeddingPanel]:
    if name not in inventory.teachers:
        return []
    teacher = inventory.teachers[name]
    network = inventory.expansion.teacher(name).spec.network
    try:
        key = cached_results.embedding_key(inventory, cache, teacher, network)
    except UnusableError as error:
        inventory.skip_teacher(name, error)
        return []
    return [EmbeddingPanel(what="teacher", id=teacher.id, seed=None, key=key)]


def _student_panel(inventory: Inventory, cache: AnalysisCache, cell: Cell) -> list[EmbeddingPanel]:
    first = inventory.first_result(
        cell,
        lambda _, run: cached_results.embedding_key(
            inventory, cache, run, cell.spec.network, cell.spec.method
        ),
    )
    if first is None:
        return []
    return [EmbeddingPanel(what=cell.method, id=first.run.id, seed=first.seed, key=first.value)]


def _examples(
    inventory: Inventory, cache: AnalysisCache, track: ProgressTracker
) -> tuple[SimplifierExample, ...]:
    cells = [cell for cell in inventory.expansion.cells if cell.spec.method.simplifier is not None]
    examples = [
        _example(inventory, cache, cell)
        for cell in track(cells, "examples")
        if cell.teacher in inventory.teacher_logits
    ]
    return tuple(example for example in examples if example is not None)


def _example(inventory: Inventory, cache: AnalysisCache, cell: Cell) -> SimplifierExample | None:
    first = inventory.first_result(
        cell, lambda seed, run: cached_results.simplifier_example(inventory, cache, run, seed, cell)
    )
    return first.value if first is not None else None
