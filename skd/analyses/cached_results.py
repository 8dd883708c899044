"""The single results of an analysis, from the cache or computed. Does not itself import torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from skd.analyses.cache import AnalysisCache
from skd.analyses.errors import UnusableError
from skd.analyses.inventory import Inventory
from skd.analyses.measure_bounds import measure_bounds
from skd.analyses.measures import class_correlation, logit_measures, teacher_agreement
from skd.analyses.records import Measures, RunMeasures, SimplifierExample
from skd.analyses.stored_networks import StoredNetwork
from skd.common.frozen import canonical
from skd.study.expansion import Cell
from skd.study.spec import MethodSpec


def teacher_measures(inventory: Inventory, cache: AnalysisCache, name: str) -> Measures:
    """Return the measures of a teacher with usable test logits."""
    teacher = inventory.teachers[name]
    source = cache.key("measures", teacher.logits_digest)
    cached = cache.teacher(teacher.id, source)
    if cached is not None and cached.possible is not None:
        return cached
    values = _measure(inventory, inventory.teacher_logits[name])
    return Measures(**values, source=source, logits=teacher.logits_digest)


def run_measures(
    inventory: Inventory, cache: AnalysisCache, run: StoredNetwork, teacher: str | None
) -> RunMeasures:
    """Return a run's measures, compared with the teacher's if that has usable test logits.

    Raises:
        UnusableError: the run's test logits are not usable.
    """
    teacher_logits = inventory.teacher_logits.get(teacher) if teacher is not None else None
    has_teacher = teacher_logits is not None
    teacher_digest = inventory.teachers[teacher].logits_digest if has_teacher else None
    source = cache.key("measures", run.logits_digest, teacher_digest)
    cached = cache.run(run.id, source)
    if cached is not None and cached.possible is not None:
        return cached
    try:
        logits = inventory.logits(run)
    except UnusableError:
        if cached is not None:  # of an older version, which has fewer measures
            return cached
        raise
    values = _measure(inventory, logits)
    if has_teacher:
        values |= teacher_agreement(logits, teacher_logits)
    return RunMeasures(**values, source=source, logits=run.logits_digest)


def _measure(inventory: Inventory, logits: np.ndarray) -> dict[str, Any]:
    labels = inventory.labels
    return {**logit_measures(logits, labels), "possible": measure_bounds(logits, labels)}


def correlation_key(inventory: Inventory, cache: AnalysisCache, stored: StoredNetwork) -> str:
    """Return the key of a network's class correlations, (C, C) float32.

    Raises:
        UnusableError: its test logits are not usable.
    """

    def compute() -> np.ndarray:
        return class_correlation(inventory.logits(stored)).astype(np.float32)

    return cache.cached_array(cache.key("correlation", stored.logits_digest), compute)


def embedding_labels_key(inventory: Inventory, cache: AnalysisCache) -> str:
    """Return the key of the classes of the test images whose features are shown, (P,) int64."""

    def compute() -> np.ndarray:
        from skd.analyses.networks.features import select_images

        return inventory.labels[select_images(inventory.labels)]

    return cache.cached_array(cache.key("labels"), compute)


def embedding_key(
    inventory: Inventory,
    cache: AnalysisCache,
    stored: StoredNetwork,
    network: str,
    method: MethodSpec | None = None,
) -> str:
    """Return the key of the t-SNE of a network's features, (P, 2) float32.

    Raises:
        UnusableError: its weights are not usable, or it was trained by a method that classifies
            other features.
    """

    def compute() -> np.ndarray:
        weights = stored.read(stored.entry.weights_path)
        from skd.analyses.networks.features import check_classifier, network_tsne

        if method is not None:
            check_classifier(method)
        return network_tsne(weights, network, inventory.images)

    return cache.cached_array(cache.key("embedding", network, stored.weights_digest), compute)


def simplifier_example(
    inventory: Inventory, cache: AnalysisCache, run: StoredNetwork, seed: int, cell: Cell
) -> SimplifierExample | None:
    """Return the effect of a run's simplifier on a few test images, or ``None`` without weights.

    Raises:
        UnusableError: simplifier or test logits are not usable.
    """
    path = run.entry.objective_path
    if path.name not in run.files:  # trained by an older version, which did not store it
        return None
    spec, batch = cell.spec.method.simplifier, cell.spec.recipe.batch_size
    digests = [run.digest(path), inventory.teachers[cell.teacher].logits_digest, run.logits_digest]
    key = cache.key("example", canonical(spec), batch, *digests)
    source = {"pair": cell.pair, "method": cell.method, "seed": seed, "id": run.id}
    cached = cache.example(f"{key}/images")
    if cached is not None:
        return cached.model_copy(update=source)
    weights, student = run.read(path), inventory.logits(run)[:batch]
    from skd.analyses.networks.examples import example_distributions

    distributions = example_distributions(
        spec, weights, inventory.teacher_logits[cell.teacher][:batch], student
    )
    indices = distributions.indices
    arrays = {"images": inventory.pixels(indices), **distributions.probabilities}
    return SimplifierExample(
        **source,
        temperature=distributions.temperature,
        indices=tuple(indices.tolist()),
        labels=tuple(inventory.labels[indices].tolist()),
        **{name: cache.add_array(f"{key}/{name}", array) for name, array in arrays.items()},
    )
