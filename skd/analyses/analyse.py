"""Which findings make up a study's analysis."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from skd.analyses import cached_results
from skd.analyses.cache import AnalysisCache, write_analysis
from skd.analyses.inventory import Inventory, ProgressTracker
from skd.analyses.records import (
    FEATURE_METHODS,
    Analysis,
    Embedding,
    EmbeddingPanel,
    RunMeasures,
    SimplifierExample,
)
from skd.analyses.stored_networks import UnusableError
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion


def analyse_study(
    expansion: Expansion,
    results: Path,
    features: Collection[str] = FEATURE_METHODS,
    track: ProgressTracker = lambda items, _: items,
) -> Analysis:
    """Analyse a study's finished runs, write what was found, and return it.

    Nothing is made anew that the study's last analysis holds. What cannot be used (weights or
    logits that are missing, damaged or of other images) is named in `skipped`; the rest goes on.

    Args:
        expansion: the study.
        results: where its runs are, and the analysis will be.
        features: the methods whose features are shown beside the teacher's.
        track: shows how far it is; is given what is gone through, and its name.

    Raises:
        DataError: the data set is needed, and not at hand.
    """
    cache = AnalysisCache.read(results, expansion.study, expansion.dataset)
    stock = Inventory(expansion, Store(results))
    ids = {name: stock.teachers[name].id for name in stock.teacher_logits}
    analysis = Analysis(
        study=expansion.study,
        dataset=expansion.dataset,
        teachers={ids[name]: cached_results.teacher_measures(stock, cache, name) for name in ids},
        runs=_runs(stock, cache, track),
        correlations=_correlations(stock, cache, track),
        embeddings=_embeddings(stock, cache, features, track),
        examples=_examples(stock, cache, track),
        classes=cache.previous.classes if cache.previous else stock.images.classes,
        skipped=stock.skipped,
        altered=stock.altered(track),
    )
    write_analysis(analysis, cache.arrays, results)
    return analysis


def _runs(stock: Inventory, cache: AnalysisCache, track: ProgressTracker) -> dict[str, RunMeasures]:
    found = {}
    for cell in track(stock.expansion.cells, "test logits"):
        for _, run in stock.finished(cell):
            try:
                found[run.id] = cached_results.run_measures(stock, cache, run, cell.teacher)
            except UnusableError as error:
                stock.skip(run.id, error)
    return found


def _correlations(stock: Inventory, cache: AnalysisCache, track: ProgressTracker) -> dict[str, str]:
    teachers = [stock.teachers[name] for name in stock.teacher_logits]
    found = {
        teacher.id: cached_results.correlation_key(stock, cache, teacher) for teacher in teachers
    }
    for cell in track(stock.expansion.cells, "correlations"):
        first = stock.first(cell, lambda _, run: cached_results.correlation_key(stock, cache, run))
        if first is not None:
            found[first.run.id] = first.found
    return found


def _embeddings(
    stock: Inventory, cache: AnalysisCache, features: Collection[str], track: ProgressTracker
) -> dict[str, Embedding]:
    found = {}
    for teacher, student in track(stock.expansion.pairs, "features"):
        panels = _teacher_panel(stock, cache, teacher)
        for method in stock.expansion.methods_of(teacher, student):
            if method in features:
                panels += _panel(stock, cache, stock.expansion.cell_of(teacher, student, method))
        if panels:
            labels = cached_results.embedding_labels_key(stock, cache)
            found[f"{teacher}--{student}"] = Embedding(labels=labels, panels=tuple(panels))
    return found


def _teacher_panel(stock: Inventory, cache: AnalysisCache, name: str) -> list[EmbeddingPanel]:
    if name not in stock.teachers:
        return []
    teacher = stock.teachers[name]
    network = stock.expansion.teacher(name).spec.network
    try:
        key = cached_results.embedding_key(stock, cache, teacher, network)
    except UnusableError as error:
        stock.skip_teacher(name, error)
        return []
    return [EmbeddingPanel(what="teacher", id=teacher.id, seed=None, key=key)]


def _panel(stock: Inventory, cache: AnalysisCache, cell: Cell) -> list[EmbeddingPanel]:
    first = stock.first(
        cell, lambda _, run: cached_results.embedding_key(stock, cache, run, cell.spec.network)
    )
    if first is None:
        return []
    return [EmbeddingPanel(what=cell.method, id=first.run.id, seed=first.seed, key=first.found)]


def _examples(
    stock: Inventory, cache: AnalysisCache, track: ProgressTracker
) -> tuple[SimplifierExample, ...]:
    cells = [cell for cell in stock.expansion.cells if cell.spec.method.simplifier is not None]
    found = [
        _example(stock, cache, cell)
        for cell in track(cells, "examples")
        if cell.teacher in stock.teacher_logits
    ]
    return tuple(example for example in found if example is not None)


def _example(stock: Inventory, cache: AnalysisCache, cell: Cell) -> SimplifierExample | None:
    first = stock.first(
        cell, lambda seed, run: cached_results.simplifier_example(stock, cache, run, seed, cell)
    )
    return first.found if first is not None else None
