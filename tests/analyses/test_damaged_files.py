"""Damaged analyses, logits, weights, simplifiers and teachers are named; the rest is analysed."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from skd.analyses import cache
from skd.analyses.analyse import analyse_study
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from tests.builders import tiny
from tests.builders.analyses import LOGITS, files, run_id, teacher_of

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.mark.parametrize("damage", ["json", "npz", "both", "older"])
def test_a_damaged_analysis_is_made_again(
    expansion: Expansion, copy: Path, computed: Counter, damage: str
) -> None:
    folder = copy / "tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage in ("json", "both"):
        (folder / "analysis.json").write_bytes(before["analysis.json"][:-100])
    if damage in ("npz", "both"):
        middle = len(before["analysis.npz"]) // 2
        flipped = bytes(255 - byte for byte in before["analysis.npz"][middle : middle + 64])
        data = before["analysis.npz"][:middle] + flipped + before["analysis.npz"][middle + 64 :]
        (folder / "analysis.npz").write_bytes(data)
    if damage == "older":
        (folder / "analysis.json").write_text('{"study": "tiny", "runs": {}, "skipped": []}')
    analyse_study(expansion, copy)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert computed["logit_measures"] == (0 if damage == "npz" else 8)
    assert computed["network_tsne"] == (4 if damage in ("npz", "both") else 0)


def test_another_version_of_a_finding_is_made_again(
    expansion: Expansion, copy: Path, computed: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cache.KIND_VERSIONS, "correlation", 2)
    analyse_study(expansion, copy)
    assert computed == {"class_correlation": 5}


# Unusable files.


def change_logits(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[StoreEntry], None]:
    """Store other logits, and their hash in the record."""

    def damage(entry: StoreEntry) -> None:
        save_file({"logits": change(load_file(entry.logits_path)["logits"])}, entry.logits_path)
        record = entry.record()
        assert record is not None
        sha256 = hashlib.sha256(entry.logits_path.read_bytes()).hexdigest()
        hashes = {**record.files, entry.logits_path.name: sha256}
        entry.write(record.model_copy(update={"files": hashes}))

    return damage


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(logits: np.ndarray) -> np.ndarray:
        logits[3, 2] = value
        return logits

    return change


def forget(entry: StoreEntry) -> None:
    entry.logits_path.unlink()
    record = entry.record()
    assert record is not None
    entry.write(record.model_copy(update={"files": {}}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def not_tensors(entry: StoreEntry) -> None:
    entry.logits_path.write_bytes(b"not tensors")
    record = entry.record()
    assert record is not None
    hashes = {**record.files, entry.logits_path.name: hashlib.sha256(b"not tensors").hexdigest()}
    entry.write(record.model_copy(update={"files": hashes}))


DAMAGES = {
    "gone": (lambda entry: entry.logits_path.unlink(), "test logits not found"),
    "merged without": (forget, "test logits not found"),
    "truncated": (lambda entry: truncate(entry.logits_path), f"{LOGITS} is not the recorded file"),
    "a folder": (
        lambda entry: (entry.logits_path.unlink(), entry.logits_path.mkdir()),
        f"{LOGITS} cannot be read: Is a directory",
    ),
    "not tensors": (not_tensors, f"{LOGITS} cannot be read"),
    "fewer images": (change_logits(lambda x: x[:-1]), "logits instead of"),
    "fewer classes": (change_logits(lambda x: x[:, :-1].copy()), "logits instead of"),
    "flat": (change_logits(lambda x: x.reshape(-1)), "logits instead of"),
    "nan": (change_logits(put(np.nan)), "logits that are not finite"),
    "inf": (change_logits(put(np.inf)), "logits that are not finite"),
    "record": (lambda entry: truncate(entry.record_path), "record.json is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_unusable_run_is_named_and_the_rest_continues(
    expansion: Expansion, analysed: Path, trained: Path, tmp_path: Path, name: str
) -> None:
    whole, _ = files(analysed)
    results = shutil.copytree(trained, tmp_path / "results")
    damage, reason = DAMAGES[name]
    bad, next_seed = (run_id(expansion, "skd", seed) for seed in (0, 1))
    damage(Store(results).run(bad))
    analysis = analyse_study(expansion, results, features=())
    assert analysis.skipped.keys() == {bad}
    assert reason in analysis.skipped[bad]
    assert analysis.runs == {i: m for i, m in whole.runs.items() if i != bad}
    assert analysis.teachers == whole.teachers
    # The next seed replaces it.
    assert analysis.correlations.keys() == {*whole.correlations} - {bad} | {next_seed}
    assert [(e.method, e.seed) for e in analysis.examples] == [("skd", 1), ("frozen", 1)]


def test_what_was_found_of_a_recorded_file_stays_when_the_file_goes(
    expansion: Expansion, copy: Path, computed: Counter
) -> None:
    before, _ = files(copy)
    for path in (copy / "runs").glob("*/*.safetensors"):
        path.unlink()
    assert analyse_study(expansion, copy) == before
    assert computed == {}


def test_unusable_weights_and_simplifiers_cost_their_panels_and_examples_alone(
    expansion: Expansion, trained: Path, analysed: Path, tmp_path: Path
) -> None:
    whole, _ = files(analysed)
    results = shutil.copytree(trained, tmp_path / "results")
    store = Store(results)
    kd, skd = run_id(expansion, "kd"), run_id(expansion, "skd")
    store.run(kd).weights_path.unlink()
    truncate(store.run(skd).objective_path)
    analysis = analyse_study(expansion, results, features=["kd"])
    assert analysis.runs == whole.runs
    assert analysis.skipped == {
        kd: "weights not found",
        skd: "objective.safetensors is not the recorded file: damaged or replaced",
    }
    assert [p.seed for p in analysis.embeddings[tiny.PAIR].panels] == [None, 1]
    assert [(e.method, e.seed) for e in analysis.examples] == [("skd", 1), ("frozen", 1)]


def test_runs_from_before_simplifiers_were_kept_have_no_examples(
    expansion: Expansion, trained: Path, tmp_path: Path
) -> None:
    results = shutil.copytree(trained, tmp_path / "results")
    for seed in (0, 1):
        entry = Store(results).run(run_id(expansion, "skd", seed))
        record = entry.record()
        assert record is not None
        entry.objective_path.unlink()
        hashes = {n: sha for n, sha in record.files.items() if n != entry.objective_path.name}
        entry.write(record.model_copy(update={"files": hashes}))
    analysis = analyse_study(expansion, results, features=())
    assert [example.method for example in analysis.examples] == ["frozen"]
    assert analysis.skipped == {}


@pytest.mark.parametrize("lost", ["weights", "logits", "card", "record"])
def test_a_teacher_that_is_not_whole(
    expansion: Expansion, trained: Path, tmp_path: Path, lost: str
) -> None:
    results = shutil.copytree(trained, tmp_path / "results")
    teacher = teacher_of(expansion, results)
    paths = {
        "weights": teacher.weights_path,
        "logits": teacher.logits_path,
        "card": teacher.card_path,
        "record": teacher.record_path,
    }
    if lost in ("weights", "logits"):
        paths[lost].unlink()
    else:
        truncate(paths[lost])
    analysis = analyse_study(expansion, results, features=["kd"])
    assert analysis.skipped.keys() == {teacher.id}
    assert analysis.skipped[teacher.id].startswith("teacher teacher: ")
    assert len(analysis.runs) == 7
    measured = analysis.runs[run_id(expansion, "kd")]
    assert (measured.agreement is None) == (lost != "weights")
    assert (measured.teacher_kl is None) == (lost != "weights")
    assert len(analysis.teachers) == (lost == "weights")
    panels = [panel.what for panel in analysis.embeddings[tiny.PAIR].panels]
    assert panels == (["teacher", "kd"] if lost == "logits" else ["kd"])
    assert len(analysis.examples) == (2 if lost == "weights" else 0)


def test_an_imported_teacher_has_no_record(
    expansion: Expansion, trained: Path, analysed: Path, tmp_path: Path
) -> None:
    results = shutil.copytree(trained, tmp_path / "results")
    teacher = teacher_of(expansion, results)
    teacher.record_path.unlink()
    assert analyse_study(expansion, results, features=()).teachers == files(analysed)[0].teachers
    change = change_logits(put(np.nan))
    shutil.copy(teacher_record(trained, expansion), teacher.record_path)
    change(teacher)
    teacher.record_path.unlink()
    analysis = analyse_study(expansion, results, features=())
    assert analysis.teachers == {}
    assert "not finite" in analysis.skipped[teacher.id]


def teacher_record(results: Path, expansion: Expansion) -> Path:
    return teacher_of(expansion, results).record_path
