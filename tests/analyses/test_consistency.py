"""Stored numbers against the files beside them: possible measures, `skd analyse`, the report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from report.output.write import write_report
from skd.analyses.analyse import analyse_study
from skd.analyses.consistency import LOGITS_FILE, check_store
from skd.analyses.measure_bounds import contradictions, measure_bounds
from skd.analyses.records import read_analysis
from skd.cli import analyse as analyse_command
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.study.expansion_files import write_expansion
from tests.builders import tiny

# Possible values.


@settings(max_examples=60)
@given(
    st.integers(0, 2**31), st.integers(1, 200), st.integers(2, 12), st.sampled_from([1e-7, 1, 200])
)
def test_what_was_measured_before_rounding_is_possible(seed, images, classes, scale):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(0, scale, (images, classes)).round(2 if seed % 2 else 9)  # many ties or 0
    bounds = measure_bounds(logits.astype(np.float16).astype(np.float64), labels)
    label = logits[np.arange(images), labels][:, None]
    for name, k in (("top1", 1), ("top5", 5)):
        low, high = getattr(bounds, name)
        others = logits > label
        assert low <= 100 * (others.sum(axis=1) < k).mean() <= high
    loss = -log_softmax(logits, axis=1)[np.arange(images), labels].mean()
    assert bounds.loss[0] - 1e-9 <= loss <= bounds.loss[1] + 1e-9


def test_only_near_ties_are_uncertain():
    labels, logits = np.arange(4), np.eye(4) * 5.0
    assert measure_bounds(logits, labels).top1 == (100.0, 100.0)
    logits[3, 0] = 5.0 + 1e-4
    assert measure_bounds(logits, labels).top1 == (75.0, 100.0)
    logits[3, 0] = 5.1
    assert measure_bounds(logits, labels).top1 == (75.0, 75.0)
    low, high = measure_bounds(logits, labels).loss
    assert 0 < high - low < 0.01


# A study.


@pytest.fixture(scope="module")
def expansion() -> Expansion:
    return tiny.study(methods=["student", "kd"], recipe={"epochs": 1, "milestones": []}, seeds=1)


@pytest.fixture(scope="module")
def trained(expansion: Expansion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    for method in ("student", "kd"):
        tiny.run(expansion, results, method)
    analyse_study(expansion, results, features=())
    return results


@pytest.fixture
def results(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "results")


@pytest.fixture
def kd(expansion: Expansion, results: Path) -> StoreEntry:
    return Store(results).run(expansion.cell(tiny.PAIR, "kd").runs[0])


def edit(path: Path, top1: float) -> None:
    """Change an accuracy of a record in a consistent way."""
    data = json.loads(path.read_text())
    if "epochs" in data:
        for part in (data["last"], data["best"]):
            part["top1"] = top1
        data["epochs"][-1]["test_top1"] = top1
    else:
        data["test_top1"] = top1
    path.write_text(json.dumps(data))


def check_stored(expansion: Expansion, results: Path):
    analysis = read_analysis(results / "tiny" / "analysis.json")
    return check_store(analysis, expansion, Store(results))


def test_what_was_trained_contradicts_nothing(expansion, results):
    checks = check_stored(expansion, results)
    assert (checks.runs, checks.teachers, checks.finished, checks.unchecked) == ({}, {}, 2, 0)


def test_an_edited_accuracy_is_contradicted_without_a_new_analysis(expansion, results, kd):
    edit(kd.record_path, 99.0)
    (message,) = check_stored(expansion, results).runs[kd.id]
    assert message.startswith("top-1 99.0000, but its test logits give ")
    page = write_report(expansion, results).read_text()
    assert "1\N{NO-BREAK SPACE}run contradicted by stored files" in page
    assert f"{tiny.PAIR}/kd seed 0 (run {kd.id}): top-1 99.0000" in page


@pytest.mark.parametrize(("field", "name"), [("top5", "top-5"), ("loss", "test loss")])
def test_top5_and_loss_are_checked_too(expansion, results, kd, field, name):
    analysis, record = read_analysis(results / "tiny" / "analysis.json"), kd.record()
    last = record.epochs[-1].model_copy(update={f"test_{field}": 1.25})
    (message,) = contradictions(
        record.model_copy(update={"epochs": (last,)}), analysis.runs[kd.id].possible
    )
    assert message.startswith(f"{name} 1.2500")


def test_a_run_trained_again_is_not_judged_by_an_older_analysis(expansion, results, kd):
    edit(kd.record_path, 99.0)
    data = json.loads(kd.record_path.read_text())
    data["files"][LOGITS_FILE] = "0" * 64
    kd.record_path.write_text(json.dumps(data))
    checks = check_stored(expansion, results)
    assert (checks.runs, checks.unchecked) == ({}, 1)


def test_other_files_than_the_recorded_ones_are_named(expansion, results, kd, capsys, monkeypatch):
    monkeypatch.setattr(analyse_command, "load_expansion", lambda *_: expansion)
    other = Store(results).run(expansion.cell("resnet8", "student").runs[0])
    kd.logits_path.write_bytes(other.logits_path.read_bytes())
    other.weights_path.write_bytes(b"others")
    analyse_command.analyse("tiny", results, ["kd"])
    errors = capsys.readouterr().err
    assert (
        f"CONTRADICTED {tiny.PAIR}/kd seed 0 (run {kd.id}): {LOGITS_FILE} is not the recorded"
        in errors
    )
    assert f"(run {other.id}): weights.safetensors is not the recorded file" in errors


@pytest.mark.parametrize("edited", ["card", "weights"])
def test_a_teacher_is_checked_in_the_same_way(expansion, results, edited):
    teacher = Store(results).teacher(expansion.teachers[0].id)
    teacher.record_path.unlink()  # the card would contradict the record
    if edited == "card":
        edit(teacher.card_path, 99.0)
    else:
        teacher.weights_path.write_bytes(b"others")
    analyse_study(expansion, results, features=())
    page = write_report(expansion, results).read_text()
    assert f"Teacher teacher ({teacher.id}): {'top-1 99' if edited == 'card' else edited}" in page
    assert page.count(">contradicted by stored files<") == 1


def test_logits_that_are_not_kept_are_counted_once(expansion, results):
    for path in results.glob(f"*/*/{LOGITS_FILE}"):
        path.unlink()
    (results / "tiny" / "analysis.json").unlink()
    write_expansion(expansion, results)
    page = write_report(expansion, results).read_text()
    assert page.count("The accuracies of all 2 finished runs are not checked") == 1
    analyse_study(expansion, results, features=())
    assert check_stored(expansion, results).unchecked == 2
