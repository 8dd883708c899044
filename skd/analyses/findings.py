"""One finding at a time: known from the last analysis, or made now. Imports no torch by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from skd.analyses.cache import Cache
from skd.analyses.inventory import Stock
from skd.analyses.measures import beside_teacher, class_correlation, measures
from skd.analyses.records import Example, Measures, RunMeasures
from skd.analyses.sources import Stored, UnusableError
from skd.analyses.stated import possible
from skd.common.frozen import canonical
from skd.study.expansion import Cell


def teacher_measures(stock: Stock, cache: Cache, name: str) -> Measures:
    """Return the measures of a teacher with usable test logits."""
    teacher = stock.teachers[name]
    source = cache.key("measures", teacher.logits_digest)
    known = cache.teacher(teacher.id, source)
    if known is not None and known.possible is not None:
        return known
    found = _measured(stock, stock.teacher_logits[name])
    return Measures(**found, source=source, logits=teacher.logits_digest)


def run_measures(stock: Stock, cache: Cache, run: Stored, teacher: str | None) -> RunMeasures:
    """Return a run's measures, beside the named teacher's where that has usable test logits.

    Raises:
        UnusableError: the run's test logits are not usable.
    """
    beside = stock.teacher_logits.get(teacher) if teacher is not None else None
    taught = stock.teachers[teacher].logits_digest if beside is not None else None
    source = cache.key("measures", run.logits_digest, taught)
    known = cache.run(run.id, source)
    if known is not None and known.possible is not None:
        return known
    try:
        logits = stock.logits(run)
    except UnusableError:
        if known is not None:  # as far as an older analysis went
            return known
        raise
    found = _measured(stock, logits)
    if beside is not None:
        found |= beside_teacher(logits, beside)
    return RunMeasures(**found, source=source, logits=run.logits_digest)


def _measured(stock: Stock, logits: np.ndarray) -> dict[str, Any]:
    labels = stock.labels
    return {**measures(logits, labels), "possible": possible(logits, labels)}


def correlation(stock: Stock, cache: Cache, stored: Stored) -> str:
    """Return the key of a network's class correlations, (C, C) float32.

    Raises:
        UnusableError: its test logits are not usable.
    """

    def make() -> np.ndarray:
        return class_correlation(stock.logits(stored)).astype(np.float32)

    return cache.array(cache.key("correlation", stored.logits_digest), make)


def shown_labels(stock: Stock, cache: Cache) -> str:
    """Return the key of the classes of the test images whose features are shown, (P,) int64."""

    def make() -> np.ndarray:
        from skd.analyses.networks.features import chosen_images

        return stock.labels[chosen_images(stock.labels)]

    return cache.array(cache.key("labels"), make)


def embedding(stock: Stock, cache: Cache, stored: Stored, network: str) -> str:
    """Return the key of the t-SNE of a network's features, (P, 2) float32.

    Raises:
        UnusableError: its weights are not usable.
    """

    def make() -> np.ndarray:
        weights = stored.read(stored.entry.weights_path)
        from skd.analyses.networks.features import tsne_of

        return tsne_of(weights, network, stock.images)

    return cache.array(cache.key("embedding", network, stored.weights_digest), make)


def example(stock: Stock, cache: Cache, run: Stored, seed: int, cell: Cell) -> Example | None:
    """Return what a run's simplifier does to a few test images; none where it kept none.

    Raises:
        UnusableError: simplifier or test logits are not usable.
    """
    kept = run.entry.kept_path
    if kept.name not in run.files:  # trained before it was kept
        return None
    spec, batch = cell.spec.method.simplifier, cell.spec.recipe.batch_size
    digests = [run.digest(kept), stock.teachers[cell.teacher].logits_digest, run.logits_digest]
    key = cache.key("example", canonical(spec), batch, *digests)
    place = {"pair": cell.pair, "method": cell.method, "seed": seed, "id": run.id}
    known = cache.example(f"{key}/images")
    if known is not None:
        return known.model_copy(update=place)
    weights, student = run.read(kept), stock.logits(run)[:batch]
    from skd.analyses.networks.examples import distributions

    found = distributions(spec, weights, stock.teacher_logits[cell.teacher][:batch], student)
    places = found.places
    arrays = {"images": stock.pixels(places), **found.probabilities}
    return Example(
        **place,
        temperature=found.temperature,
        indices=tuple(places.tolist()),
        labels=tuple(stock.labels[places].tolist()),
        **{name: cache.put(f"{key}/{name}", array) for name, array in arrays.items()},
    )
