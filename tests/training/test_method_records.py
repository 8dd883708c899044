"""Each of the ten methods writes a complete run, and the report contains all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.output.write import write_report
from tests.builders import tiny

TEACHER, STUDENT = 64, 64  # pooled widths of the tiny pair, resnet8 both
IMAGES, CLASSES, WIDTH = 80, 10, 128
SIMPLIFIER = 2 * CLASSES + 4 * CLASSES**2  # layer norm; query, key, value, output without bias
EMBEDDINGS = (STUDENT + 1) * WIDTH + (TEACHER + 1) * WIDTH


def fusion(own: int, goal: int, fuses: bool) -> int:
    """ABF: 1×1 convolution, batch norm, 3×3 convolution, batch norm; attention of two maps."""
    mid = STUDENT
    return own * mid + 2 * mid + 9 * mid * goal + 2 * goal + (2 * mid * 2 + 2) * fuses


FUSIONS = fusion(16, 16, True) + fusion(32, 32, True) + fusion(64, 64, True) + fusion(64, 64, False)
EXTRA = {
    "student": 0,
    "kd": 0,
    "dkd": 0,
    "crd": EMBEDDINGS,
    "reviewkd": FUSIONS,
    "skd": SIMPLIFIER,
    "skd+kd": SIMPLIFIER,
    "skd+dkd": SIMPLIFIER,
    "skd+crd": SIMPLIFIER + EMBEDDINGS,
    "skd+reviewkd": SIMPLIFIER + FUSIONS,
}
LOSSES = {
    "student": [],
    "skd": ["kd on simplified"],
    "skd+kd": ["kd", "kd on simplified"],
    "skd+dkd": ["dkd on simplified"],
    "skd+crd": ["kd on simplified", "crd"],
    "skd+reviewkd": ["kd on simplified", "reviewkd"],
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


EXPANSION = tiny.study(methods=list(EXTRA), seeds=1, recipe={"epochs": 1, "milestones": []})


@pytest.mark.parametrize("method", EXTRA)
def test_the_record_is_complete(results: Path, method: str) -> None:
    record = tiny.run(EXPANSION, results, method)
    epoch = record.epochs[0]
    parts = LOSSES.get(method, [method])
    assert set(epoch.train_losses) == {"total", "cross_entropy", *parts}
    weights = {t.term: t.settings["weight"] for t in record.spec.method.terms}
    warmup = {"dkd": 1 / 20, "reviewkd": 1 / 20}  # the first of 20 epochs
    total = sum(
        weights[term] * warmup.get(term, 1) * epoch.train_losses[label]
        for label in ("cross_entropy", *parts)
        for term in [label.removesuffix(" on simplified")]
    )
    assert epoch.train_losses["total"] == pytest.approx(total, rel=1e-5)
    assert record.cost.extra_parameters == EXTRA[method]
    banks = 2 * IMAGES * WIDTH * 4 if "crd" in method else 0
    memory = record.cost.extra_memory_bytes
    assert memory >= EXTRA[method] * 4 + banks
    assert memory <= EXTRA[method] * 4 + banks + 8192  # labels, batch norms' statistics
    assert (record.collapse is not None) == method.startswith("skd")
    assert bool(epoch.diagnostics) == method.startswith("skd")
    assert (record.teacher is not None) == (method != "student")
    extra_files = {"objective.safetensors"} if method.startswith("skd") else set()
    assert set(record.files) == {"weights.safetensors", "test_logits.safetensors", *extra_files}


def test_the_report_has_every_method(results: Path) -> None:
    for method in EXTRA:  # each is there already, unless this test runs alone
        tiny.run(EXPANSION, results, method)
    page = write_report(EXPANSION, results).read_text()
    for method in EXTRA:
        assert f">{method}<" in page
