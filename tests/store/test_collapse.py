"""Collapsed runs are detected from the diagnostics of their epochs."""

from __future__ import annotations

import pytest

from skd.store.collapse import detect_collapse
from skd.store.records import EpochMetrics

# The collapse control.


def epochs(*diagnostics: dict[str, float]) -> list[EpochMetrics]:
    common = {"learning_rate": 0.1, "train_losses": {}, "train_top1": 0, "test_loss": 0}
    common |= {"test_top1": 0, "test_top5": 0, "seconds": 1, "images_per_second": 1}
    return [EpochMetrics(epoch=i + 1, diagnostics=d, **common) for i, d in enumerate(diagnostics)]


def diagnostics(top1: float = 99.7, entropy: float = 3.61) -> dict[str, float]:
    softened = {"top1_raw": 99.7, "entropy_softened": 3.6}
    return {**softened, "top1_simplified": top1, "entropy_simplified": entropy}


HEALTHY = diagnostics()
NO_LABELS = diagnostics(top1=39.0)
NO_INFORMATION = diagnostics(entropy=4.60)
JUST_KEPT = diagnostics(top1=89.8, entropy=4.50)  # 89.73 % is nine tenths; 4.5047 nats a tenth


def test_healthy_runs_are_not_flagged():
    for last in (HEALTHY, JUST_KEPT):
        verdict = detect_collapse(epochs(HEALTHY, last), 100)
        assert (verdict.collapsed, verdict.reason, verdict.first_epoch) == (False, "", None)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (NO_LABELS, ("labels", "39.0")),
        (diagnostics(top1=89.6), ("labels", "89.6")),
        (NO_INFORMATION, ("information", "0.005")),
        (diagnostics(entropy=4.506), ("information",)),
        (diagnostics(top1=0.3, entropy=4.6), ("labels", "information")),
    ],
)
def test_lost_labels_or_information_are_flagged_with_the_reason(last, words):
    verdict = detect_collapse(epochs(HEALTHY, last), 100)
    assert verdict.collapsed
    assert verdict.first_epoch == 2
    assert all(word in verdict.reason for word in words)
    assert ("labels" in verdict.reason, "information" in verdict.reason) == (
        "labels" in words,
        "information" in words,
    )


@pytest.mark.parametrize(
    ("stretch", "first"),
    [
        ("c", 1),
        ("ccc", 1),
        ("hhc", 3),
        ("hccc", 2),
        ("chcc", 3),
        ("cchhc", 5),
        ("hcic", 2),  # a stretch may mix both reasons
    ],
)
def test_first_epoch_starts_the_last_stretch(stretch, first):
    by_letter = {"h": HEALTHY, "c": NO_LABELS, "i": NO_INFORMATION}
    verdict = detect_collapse(epochs(*(by_letter[letter] for letter in stretch)), 100)
    assert verdict.collapsed
    assert verdict.first_epoch == first


def test_a_run_that_recovered_is_not_flagged():
    assert not detect_collapse(epochs(HEALTHY, NO_LABELS, NO_INFORMATION, HEALTHY), 100).collapsed


def test_the_reason_is_the_last_epochs():
    verdict = detect_collapse(epochs(NO_LABELS, NO_INFORMATION), 100)
    assert verdict.first_epoch == 1
    assert "labels" not in verdict.reason


def test_information_is_measured_against_the_number_of_classes():
    diagnostics = {**HEALTHY, "entropy_softened": 1.0, "entropy_simplified": 2.2}
    assert detect_collapse(
        epochs(diagnostics), 10
    ).collapsed  # log 10 = 2.303: 0.10 of 1.30 nats is left
    assert not detect_collapse(epochs(diagnostics), 100).collapsed


def test_no_simplifier_no_verdict():
    assert detect_collapse([], 100) is None
    assert detect_collapse(epochs({}, {}), 100) is None
