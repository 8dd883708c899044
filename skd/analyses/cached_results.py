"""One finding at a time: known from the last analysis, or made now. Imports no torch by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from skd.analyses.cache import AnalysisCache
from skd.analyses.inventory import Inventory
from skd.analyses.measure_bounds import measure_bounds
from skd.analyses.measures import class_correlation, logit_measures, teacher_agreement
from skd.analyses.records import Measures, RunMeasures, SimplifierExample
from skd.analyses.stored_networks import StoredNetwork, UnusableError
from skd.common.frozen import canonical
from skd.study.expansion import Cell


def teacher_measures(inventory: Inventory, cache: AnalysisCache, name: str) -> Measures:
    """Return the measures of a teacher with usable test logits."""
    teacher = inventory.teachers[name]
    source = cache.key("measures", teacher.logits_digest)
    known = cache.teacher(teacher.id, source)
    if known is not None and known.possible is not None:
        return known
    found = _measured(inventory, inventory.teacher_logits[name])
    return Measures(**found, source=source, logits=teacher.logits_digest)


def run_measures(
    inventory: Inventory, cache: AnalysisCache, run: StoredNetwork, teacher: str | None
) -> RunMeasures:
    """Return a run's measures, beside the named teacher's where that has usable test logits.

    Raises:
        UnusableError: the run's test logits are not usable.
    """
    beside = inventory.teacher_logits.get(teacher) if teacher is not None else None
    taught = inventory.teachers[teacher].logits_digest if beside is not None else None
    source = cache.key("measures", run.logits_digest, taught)
    known = cache.run(run.id, source)
    if known is not None and known.possible is not None:
        return known
    try:
        logits = inventory.logits(run)
    except UnusableError:
        if known is not None:  # as far as an older analysis went
            return known
        raise
    found = _measured(inventory, logits)
    if beside is not None:
        found |= teacher_agreement(logits, beside)
    return RunMeasures(**found, source=source, logits=run.logits_digest)


def _measured(stock: Inventory, logits: np.ndarray) -> dict[str, Any]:
    labels = stock.labels
    return {**logit_measures(logits, labels), "possible": measure_bounds(logits, labels)}


def correlation_key(inventory: Inventory, cache: AnalysisCache, stored: StoredNetwork) -> str:
    """Return the key of a network's class correlations, (C, C) float32.

    Raises:
        UnusableError: its test logits are not usable.
    """

    def make() -> np.ndarray:
        return class_correlation(inventory.logits(stored)).astype(np.float32)

    return cache.array(cache.key("correlation", stored.logits_digest), make)


def embedding_labels_key(inventory: Inventory, cache: AnalysisCache) -> str:
    """Return the key of the classes of the test images whose features are shown, (P,) int64."""

    def make() -> np.ndarray:
        from skd.analyses.networks.features import select_images

        return inventory.labels[select_images(inventory.labels)]

    return cache.array(cache.key("labels"), make)


def embedding_key(
    inventory: Inventory, cache: AnalysisCache, stored: StoredNetwork, network: str
) -> str:
    """Return the key of the t-SNE of a network's features, (P, 2) float32.

    Raises:
        UnusableError: its weights are not usable.
    """

    def make() -> np.ndarray:
        weights = stored.read(stored.entry.weights_path)
        from skd.analyses.networks.features import network_tsne

        return network_tsne(weights, network, inventory.images)

    return cache.array(cache.key("embedding", network, stored.weights_digest), make)


def simplifier_example(
    inventory: Inventory, cache: AnalysisCache, run: StoredNetwork, seed: int, cell: Cell
) -> SimplifierExample | None:
    """Return what a run's simplifier does to a few test images; none where it kept none.

    Raises:
        UnusableError: simplifier or test logits are not usable.
    """
    kept = run.entry.objective_path
    if kept.name not in run.files:  # trained before it was kept
        return None
    spec, batch = cell.spec.method.simplifier, cell.spec.recipe.batch_size
    digests = [run.digest(kept), inventory.teachers[cell.teacher].logits_digest, run.logits_digest]
    key = cache.key("example", canonical(spec), batch, *digests)
    place = {"pair": cell.pair, "method": cell.method, "seed": seed, "id": run.id}
    known = cache.example(f"{key}/images")
    if known is not None:
        return known.model_copy(update=place)
    weights, student = run.read(kept), inventory.logits(run)[:batch]
    from skd.analyses.networks.examples import example_distributions

    found = example_distributions(
        spec, weights, inventory.teacher_logits[cell.teacher][:batch], student
    )
    places = found.places
    arrays = {"images": inventory.pixels(places), **found.probabilities}
    return SimplifierExample(
        **place,
        temperature=found.temperature,
        indices=tuple(places.tolist()),
        labels=tuple(inventory.labels[places].tolist()),
        **{name: cache.put(f"{key}/{name}", array) for name, array in arrays.items()},
    )
