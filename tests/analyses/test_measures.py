"""Measures of test logits and features, against loops, SciPy and NumPy's own correlation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from scipy.special import softmax
from scipy.stats import entropy
from threadpoolctl import threadpool_limits

from baselines.simplifier import SimplifierSettings
from skd.analyses.errors import UnusableError
from skd.analyses.measures import (
    class_correlation,
    expected_calibration_error,
    logit_measures,
    reliability,
    teacher_agreement,
)
from skd.analyses.networks import examples, features
from skd.data import load_dataset as load_images
from skd.models import build_model
from skd.study.spec import DatasetSpec, SimplifierSpec
from tests.builders.formulas import log_softmax, nll

SIZES = (st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 8), st.floats(0.1, 10))


def bins_reference(rows: list[list[float]], labels: list[int]) -> list[list[tuple[float, bool]]]:
    """Guo et al. 2017: (confidence, hit) of the images in each of 15 bins, closed on the right."""
    probabilities = [[math.exp(x) for x in log_softmax(row)] for row in rows]
    predictions = [
        (max(p), p.index(max(p)) == y) for p, y in zip(probabilities, labels, strict=True)
    ]
    return [[one for one in predictions if (m - 1) / 15 < one[0] <= m / 15] for m in range(1, 16)]


def ece_reference(rows: list[list[float]], labels: list[int]) -> float:
    """Guo et al. 2017: sum over bins of |B|/n · |accuracy - confidence|, in percent."""
    total = 0.0
    for inside in filter(None, bins_reference(rows, labels)):
        accuracy = sum(hit for _, hit in inside) / len(inside)
        confidence = sum(c for c, _ in inside) / len(inside)
        total += len(inside) / len(rows) * abs(accuracy - confidence)
    return 100 * total


@settings(max_examples=25, deadline=None)
@given(*SIZES)
def test_measures_are_the_loops(seed: int, count: int, classes: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, scale, (count, classes))
    labels = random.integers(0, classes, count)
    measures = logit_measures(logits, labels)
    rows, truth = logits.tolist(), labels.tolist()
    predicted = [row.index(max(row)) for row in rows]
    hits = [a == y for a, y in zip(predicted, truth, strict=True)]
    assert set(measures) == {"top1", "nll", "ece", "per_class_top1", "reliability"}
    assert measures["top1"] == pytest.approx(100 * sum(hits) / count)
    assert measures["nll"] == pytest.approx(nll(rows, truth), rel=1e-9)
    assert measures["ece"] == pytest.approx(ece_reference(rows, truth), rel=1e-9, abs=1e-9)
    for c in range(classes):
        of_class = [hit for hit, y in zip(hits, truth, strict=True) if y == c]
        if of_class:
            assert measures["per_class_top1"][c] == pytest.approx(
                100 * sum(of_class) / len(of_class)
            )
        else:
            assert measures["per_class_top1"][c] is None
    assert len(measures["reliability"]) == 15
    for bin_values, inside in zip(
        measures["reliability"], bins_reference(rows, truth), strict=True
    ):
        if not inside:
            assert bin_values == (0, None, None)
            continue
        assert bin_values[0] == len(inside)
        assert bin_values[1] == pytest.approx(100 * sum(c for c, _ in inside) / len(inside))
        assert bin_values[2] == pytest.approx(100 * sum(hit for _, hit in inside) / len(inside))
    json.dumps(measures, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(*SIZES)
def test_nearness_to_the_teacher_is_scipys(
    seed: int, count: int, classes: int, scale: float
) -> None:
    student, teacher = np.random.default_rng(seed).normal(0, scale, (2, count, classes))
    agreement = teacher_agreement(student, teacher)
    p, q = softmax(teacher, axis=1), softmax(student, axis=1)
    assert agreement["teacher_kl"] == pytest.approx(
        entropy(p, q, axis=1).mean(), rel=1e-9, abs=1e-12
    )
    same = sum(a.argmax() == b.argmax() for a, b in zip(student, teacher, strict=True))
    assert agreement["agreement"] == pytest.approx(100 * same / count)


def test_the_divergence_is_from_the_teacher_and_finite_where_the_student_is_certain() -> None:
    student, teacher = np.array([[0.0, 1000.0]]), np.array([[0.0, 0.0]])
    assert teacher_agreement(student, teacher)["teacher_kl"] == pytest.approx(500 - math.log(2))
    assert teacher_agreement(teacher, student)["teacher_kl"] == pytest.approx(math.log(2))


def test_a_class_without_images_has_no_accuracy() -> None:
    logits = np.array([[3.0, 0, 0], [3.0, 0, 0], [0, 0, 3.0]])
    measures = logit_measures(logits, np.array([0, 2, 2]))
    assert measures["per_class_top1"] == [100, None, 50]
    assert measures["top1"] == pytest.approx(200 / 3)


def test_calibration_error_by_hand() -> None:
    certain = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert expected_calibration_error(certain, np.array([0, 0])) == 0
    assert expected_calibration_error(certain, np.array([1, 1])) == 100
    assert expected_calibration_error(certain, np.array([0, 1])) == 50
    # Bins are closed on the right: 0.2 = 3/15 is in the third, 0.21 in the fourth.
    spread = np.array([[0.2] * 5, [0.21, 0.2, 0.2, 0.2, 0.19]])
    error = expected_calibration_error(spread, np.array([0, 1]))
    assert error == pytest.approx(100 * (0.8 + 0.21) / 2)
    assert [count for count, _, _ in reliability(spread, np.array([0, 1]))][:5] == [0, 0, 1, 1, 0]
    # Within one bin a hit and a miss cancel.
    close = np.array([[0.55, 0.45], [0.58, 0.42]])
    assert expected_calibration_error(close, np.array([0, 1])) == pytest.approx(100 * 0.13 / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 60), st.integers(2, 8), st.floats(0.1, 10))
def test_class_correlation_is_numpys(seed: int, count: int, classes: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(random.normal(0, 20, classes), scale, (count, classes))
    correlation = class_correlation(logits)
    np.testing.assert_allclose(correlation, np.corrcoef(logits, rowvar=False), atol=1e-9)
    assert np.abs(correlation).max() <= 1


def test_a_class_with_a_constant_logit_has_no_correlation() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 4))
    logits[:, 2] = 0.1  # whose mean over 7 is not 0.1 in floating point
    correlation = class_correlation(logits)
    assert not correlation[2].any()
    assert not correlation[:, 2].any()
    others = [0, 1, 3]
    expected = np.corrcoef(logits[:, others], rowvar=False)
    np.testing.assert_allclose(correlation[np.ix_(others, others)], expected, atol=1e-12)
    np.testing.assert_array_equal(class_correlation(logits[:1]), np.zeros((4, 4)))


# Features and the choice of images.


def test_examples_of_a_small_batch_are_fewer() -> None:
    logits = np.array([[0.0, 0], [9, 0], [4, 0]])
    assert examples.select_examples(logits).tolist() == [1, 2, 0]
    assert examples.select_examples(logits[:1]).tolist() == [0]


def test_the_images_shown_are_the_first_of_the_first_classes() -> None:
    labels = np.random.default_rng(0).permutation(np.arange(12 * 60) % 12)
    labels[np.flatnonzero(labels == 3)[7:]] = 11  # seven are left
    chosen = features.select_images(labels)
    first = [np.flatnonzero(labels == label)[:50] for label in range(10)]
    np.testing.assert_array_equal(chosen, np.concatenate(first))
    assert len(chosen) == 9 * 50 + 7


def test_pooled_features_are_what_the_classifier_reads() -> None:
    images = load_images(DatasetSpec(name="digits"))
    torch.manual_seed(0)
    network = build_model("resnet8", 10).eval()
    places = np.array([5, 0, 301])
    pooled = features.pooled_features(network, images, places)
    pixels = images.test_images[places].double() / 255
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (images.mean, images.std))
    with torch.no_grad():
        expected = network.double().forward_features((pixels - mean) / std).pooled
    np.testing.assert_allclose(pooled, expected, atol=1e-4)


def test_tsne_repeats_and_keeps_neighbours() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat([0, 30], 20)
    spread = random.normal(size=(40, 8)).astype(np.float32) + groups[:, None].astype(np.float32)
    embedding = features.tsne_embedding(spread)
    with threadpool_limits(2):
        np.testing.assert_array_equal(embedding, features.tsne_embedding(spread.copy()))
    distances = np.linalg.norm(embedding[:, None] - embedding[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (groups[distances.argmin(axis=1)] == groups).all()


def test_tsne_of_odd_features() -> None:
    assert not features.tsne_embedding(np.ones((40, 8), np.float32)).any()
    assert np.isfinite(features.tsne_embedding(np.eye(4, 8, dtype=np.float32))).all()
    with pytest.raises(UnusableError, match="3 test images"):
        features.tsne_embedding(np.zeros((3, 8)))
    with pytest.raises(UnusableError, match="not finite"):
        features.tsne_embedding(np.full((40, 8), np.nan))


def test_weights_that_do_not_fit_are_unusable() -> None:
    spec = SimplifierSpec(version=1, settings=SimplifierSettings().model_dump())
    for weights in (b"damaged", save({"key.weight": np.zeros((3, 3), np.float32)})):
        with pytest.raises(UnusableError):
            features.load_network(weights, "resnet8", 10)
        with pytest.raises(UnusableError, match="do not fit"):
            examples.simplified_logits(spec, weights, np.zeros((4, 10)))
