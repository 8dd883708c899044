"""`skd analyse` on a tiny study: what it finds, what it keeps, and what it leaves out."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from scipy.stats import entropy

from skd.analyses import cache, cached_results
from skd.analyses.analyse import analyse_study
from skd.analyses.measures import logit_measures, teacher_agreement
from skd.analyses.networks import examples, features
from skd.analyses.records import Analysis, read_analysis, read_arrays
from skd.cli import analyse as analyse_command
from skd.data import load_dataset as load_images
from skd.data.images import DataError, Images
from skd.losses.simplifier import Simplifier, SimplifierSettings
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion, write_expansion
from skd.study.sheet import StudyError
from tests.builders import tiny

OTHER = "absent--resnet8"  # a pair whose teacher is not at hand
METHODS = ["student", "kd", "skd", {"name": "frozen", "like": "skd"}]
METHODS[3]["settings"] = {"simplifier": {"trainable": False}}
MEASURES = {"top1", "nll", "ece", "per_class_top1", "reliability", "source", "logits", "possible"}


@pytest.fixture(scope="module")
def expansion() -> Expansion:
    teacher = tiny.SHEET["teachers"]["teacher"]
    absent = {"network": "resnet8", "train": {"seed": 8, "recipe": {"epochs": 2, "milestones": []}}}
    return tiny.study(
        methods=METHODS,
        recipe={"epochs": 1, "milestones": []},
        teachers={"teacher": teacher, "absent": absent},
        pairs=[{"teacher": name, "student": "resnet8"} for name in ("teacher", "absent")],
        settings={"simplifier": {"learning_rate_multiplier": 1.0}},  # so that it does something
    )


@pytest.fixture(scope="module")
def trained(expansion: Expansion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of student, kd and skd, one of the frozen simplifier."""
    results = tmp_path_factory.mktemp("results")
    for method in ("student", "kd", "skd"):
        for seed in (0, 1):
            tiny.run(expansion, results, method, seed)
    tiny.run(expansion, results, "frozen", 1)
    return results


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "IMAGES_PER_CLASS", 4)


@pytest.fixture(scope="module")
def analysed(expansion: Expansion, trained: Path, tmp_path_factory: Any) -> Path:
    """The same, analysed."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("analysed") / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "IMAGES_PER_CLASS", 4)
        analyse_study(expansion, results)
    return results


@pytest.fixture
def copy(analysed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(analysed, tmp_path / "results")


@pytest.fixture(scope="module")
def images(expansion: Expansion) -> Images:
    return load_images(expansion.dataset)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Count what is made, by function."""
    counts: Counter = Counter()

    def counting(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    counting(cached_results, "measures")
    counting(cached_results, "class_correlation")
    counting(features, "tsne_of")
    counting(features, "chosen_images")
    counting(examples, "distributions")
    return counts


def files(results: Path) -> tuple[Analysis, dict[str, np.ndarray]]:
    analysis = read_analysis(results / "tiny" / "analysis.json")
    assert analysis is not None
    return analysis, read_arrays(results / "tiny" / "analysis.npz")


def run_id(expansion: Expansion, method: str, seed: int = 0) -> str:
    pair = "resnet8" if method == "student" else tiny.PAIR
    return expansion.cell(pair, method).runs[seed]


def logits_of(entry: StoreEntry) -> np.ndarray:
    return load_file(entry.logits_path)["logits"].astype(np.float64)


def teacher_of(expansion: Expansion, results: Path) -> StoreEntry:
    return Store(results).teacher(expansion.teacher("teacher").id)


# What is found.


def test_measures_of_every_run_and_teacher(
    expansion: Expansion, analysed: Path, images: Images
) -> None:
    analysis, arrays = files(analysed)
    store, labels = Store(analysed), images.test_labels.numpy()
    beside = logits_of(teacher_of(expansion, analysed))
    taught = {run_id(expansion, m, s) for m in ("kd", "skd") for s in (0, 1)}
    taught.add(run_id(expansion, "frozen", 1))
    alone = {run_id(expansion, "student", seed) for seed in (0, 1)}
    assert analysis.runs.keys() == taught | alone
    for identity, found in analysis.runs.items():
        record, logits = store.run(identity).record(), logits_of(store.run(identity))
        assert found.top1 == pytest.approx(record.last.top1, abs=0.6)  # the logits are fp16
        expected = logit_measures(logits, labels)
        if identity in taught:
            expected |= teacher_agreement(logits, beside)
        else:
            assert found.agreement is None
            assert found.teacher_kl is None
        seen = json.loads(
            found.model_dump_json(exclude_none=True, exclude={"source", "logits", "possible"})
        )
        assert seen == json.loads(json.dumps(expected))
        assert found.logits == record.files[LOGITS]
    teacher = analysis.teachers[teacher_of(expansion, analysed).id]
    assert set(type(teacher).model_fields) == MEASURES
    assert teacher.top1 == pytest.approx(100 * (beside.argmax(1) == labels).mean())
    assert analysis.classes == images.classes
    assert analysis.skipped == {}
    assert len(analysis.teachers) == 1  # the other is not at hand, which is not its fault
    # Correlations: of the teacher and of the first finished seed of each cell.
    firsts = {("student", 0), ("kd", 0), ("skd", 0), ("frozen", 1)}
    assert analysis.correlations.keys() == {
        teacher_of(expansion, analysed).id,
        *(run_id(expansion, method, seed) for method, seed in firsts),
    }
    for identity, key in analysis.correlations.items():
        run = store.run(identity)
        entry = run if run.record() else teacher_of(expansion, analysed)
        assert arrays[key].dtype == np.float32
        expected = np.corrcoef(logits_of(entry), rowvar=False)
        np.testing.assert_allclose(arrays[key], expected, atol=1e-6)


def test_panels_are_of_the_teacher_and_the_methods_asked_for(
    expansion: Expansion, analysed: Path
) -> None:
    analysis, arrays = files(analysed)
    pair, other = analysis.embeddings[tiny.PAIR], analysis.embeddings[OTHER]
    assert [(panel.what, panel.seed) for panel in pair.panels] == [
        ("teacher", None),
        ("student", 0),
        ("kd", 0),
        ("skd", 0),
    ]
    assert other.panels == pair.panels[1:2]  # the student alone stands in each pair
    assert arrays[pair.labels].tolist() == sorted(4 * list(range(10)))
    for panel in pair.panels:
        points = arrays[panel.key]
        assert points.shape == (40, 2)
        assert points.dtype == np.float32
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-6)
        assert np.abs(points).max() == pytest.approx(1)
    assert len({panel.key for panel in pair.panels}) == 4


def test_examples_are_what_the_stored_simplifier_does_to_the_first_batch(
    expansion: Expansion, analysed: Path, images: Images
) -> None:
    analysis, arrays = files(analysed)
    assert [(e.pair, e.method, e.seed) for e in analysis.examples] == [
        (tiny.PAIR, "skd", 0),
        (tiny.PAIR, "frozen", 1),
    ]
    teacher = logits_of(teacher_of(expansion, analysed))[:64]
    ranked = np.argsort(entropy(softmax(teacher, axis=1), axis=1), kind="stable")
    for example in analysis.examples:
        cell, entry = expansion.cell(tiny.PAIR, example.method), Store(analysed).run(example.id)
        assert example.id == cell.runs[example.seed]
        assert example.indices == tuple(ranked[[0, 21, 42, 63]])
        places = list(example.indices)
        assert example.labels == tuple(images.test_labels[places].tolist())
        np.testing.assert_array_equal(arrays[example.images], images.test_images[places].numpy())
        # An independently built simplifier with the stored weights, in float64.
        settings = SimplifierSettings.restore(cell.spec.method.simplifier.settings)
        simplifier = Simplifier(settings, 10)
        weights = load_file(entry.objective_path)
        simplifier.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
        t = settings.temperature
        assert example.temperature == t == 4
        with torch.no_grad():
            simplified = simplifier.double()(torch.from_numpy(teacher)).numpy() / t
        expected = {
            "raw": teacher,
            "softened": teacher / t,
            "simplified": simplified,
            "student": logits_of(entry)[:64],
        }
        for name, values in expected.items():
            found = arrays[getattr(example, name)]
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, softmax(values[places], axis=1), atol=1e-5)
    skd, frozen = ((arrays[e.softened], arrays[e.simplified]) for e in analysis.examples)
    np.testing.assert_allclose(*frozen, atol=1e-6)  # W_o = 0: SKD is KD
    assert np.abs(skd[0] - skd[1]).max() > 1e-4


# What is kept.


def test_nothing_is_made_twice_and_the_files_stay_the_same(
    expansion: Expansion, copy: Path, made: Counter
) -> None:
    before = {path.name: path.read_bytes() for path in (copy / "tiny").iterdir()}
    assert before.keys() == {"analysis.json", "analysis.npz"}
    analyse_study(expansion, copy)
    assert made == {}
    assert {path.name: path.read_bytes() for path in (copy / "tiny").iterdir()} == before
    # Made anew, they are the same bytes too.
    shutil.rmtree(copy / "tiny")
    analyse_study(expansion, copy)
    assert made == {
        "measures": 8,
        "class_correlation": 5,
        "tsne_of": 4,
        "chosen_images": 5,
        "distributions": 2,
    }
    assert {path.name: path.read_bytes() for path in (copy / "tiny").iterdir()} == before


def test_a_cached_analysis_imports_no_torch(expansion: Expansion, copy: Path) -> None:
    path = write_expansion(expansion, copy)
    code = (
        "import sys; from pathlib import Path; from skd.study.expansion import kept_expansion;"
        "from skd.analyses.analyse import analyse;"
        f"analyse(kept_expansion(Path({str(path)!r})), Path({str(copy)!r}), features=());"
        "print('torch' in sys.modules)"
    )

    def imports_torch() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert imports_torch() == "False"
    (copy / "tiny" / "analysis.json").unlink()  # now measures are missing
    assert imports_torch() == "True"


def test_an_added_run_is_all_that_is_looked_at(
    expansion: Expansion, copy: Path, made: Counter
) -> None:
    before, _ = files(copy)
    tiny.run(expansion, copy, "frozen", 0)
    after = analyse_study(expansion, copy)
    # The cell's first finished seed is now another.
    assert made == {"measures": 1, "class_correlation": 1, "distributions": 1}
    assert after.runs == {
        **before.runs,
        **{(new := run_id(expansion, "frozen", 0)): after.runs[new]},
    }
    assert after.examples[1].seed == 0
    assert after.correlations.keys() - before.correlations.keys() == {new}


def test_other_methods_features_on_request(expansion: Expansion, copy: Path, made: Counter) -> None:
    analysis = analyse_study(expansion, copy, features=["frozen", "kd"])
    assert made == {"tsne_of": 1, "chosen_images": 1}
    assert [panel.what for panel in analysis.embeddings[tiny.PAIR].panels] == [
        "teacher",
        "kd",
        "frozen",
    ]
    assert OTHER not in analysis.embeddings


@pytest.mark.parametrize("damage", ["json", "npz", "both", "older"])
def test_a_damaged_analysis_is_made_anew(
    expansion: Expansion, copy: Path, made: Counter, damage: str
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
    assert made["measures"] == (0 if damage == "npz" else 8)
    assert made["tsne_of"] == (4 if damage in ("npz", "both") else 0)


def test_another_version_of_a_finding_is_made_anew(
    expansion: Expansion, copy: Path, made: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cache.KIND_VERSIONS, "correlation", 2)
    analyse_study(expansion, copy)
    assert made == {"class_correlation": 5}


# What cannot be used.


def change_logits(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[StoreEntry], None]:
    """Store other logits, and their hash in the record."""

    def damage(entry: StoreEntry) -> None:
        save_file({"logits": change(load_file(entry.logits_path)["logits"])}, entry.logits_path)
        record = entry.record()
        assert record is not None
        sha256 = hashlib.sha256(entry.logits_path.read_bytes()).hexdigest()
        stated = {**record.files, entry.logits_path.name: sha256}
        entry.write(record.model_copy(update={"files": stated}))

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
    stated = {**record.files, entry.logits_path.name: hashlib.sha256(b"not tensors").hexdigest()}
    entry.write(record.model_copy(update={"files": stated}))


LOGITS = "test_logits.safetensors"
DAMAGES = {
    "gone": (lambda entry: entry.logits_path.unlink(), "no test logits at hand"),
    "merged without": (forget, "no test logits at hand"),
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
def test_an_unusable_run_is_named_and_the_rest_goes_on(
    expansion: Expansion, analysed: Path, trained: Path, tmp_path: Path, name: str
) -> None:
    whole, _ = files(analysed)
    results = shutil.copytree(trained, tmp_path / "results")
    damage, reason = DAMAGES[name]
    bad, next_seed = (run_id(expansion, "skd", seed) for seed in (0, 1))
    damage(Store(results).run(bad))
    found = analyse_study(expansion, results, features=())
    assert found.skipped.keys() == {bad}
    assert reason in found.skipped[bad]
    assert found.runs == {i: m for i, m in whole.runs.items() if i != bad}
    assert found.teachers == whole.teachers
    # The next seed stands in.
    assert found.correlations.keys() == {*whole.correlations} - {bad} | {next_seed}
    assert [(e.method, e.seed) for e in found.examples] == [("skd", 1), ("frozen", 1)]


def test_what_was_found_of_a_recorded_file_stays_when_the_file_goes(
    expansion: Expansion, copy: Path, made: Counter
) -> None:
    before, _ = files(copy)
    for path in (copy / "runs").glob("*/*.safetensors"):
        path.unlink()
    assert analyse_study(expansion, copy) == before
    assert made == {}


def test_unusable_weights_and_simplifiers_cost_their_panels_and_examples_alone(
    expansion: Expansion, trained: Path, analysed: Path, tmp_path: Path
) -> None:
    whole, _ = files(analysed)
    results = shutil.copytree(trained, tmp_path / "results")
    store = Store(results)
    kd, skd = run_id(expansion, "kd"), run_id(expansion, "skd")
    store.run(kd).weights_path.unlink()
    truncate(store.run(skd).objective_path)
    found = analyse_study(expansion, results, features=["kd"])
    assert found.runs == whole.runs
    assert found.skipped == {
        kd: "no weights at hand",
        skd: "objective.safetensors is not the recorded file: damaged or replaced",
    }
    assert [p.seed for p in found.embeddings[tiny.PAIR].panels] == [None, 1]
    assert [(e.method, e.seed) for e in found.examples] == [("skd", 1), ("frozen", 1)]


def test_runs_from_before_simplifiers_were_kept_have_no_examples(
    expansion: Expansion, trained: Path, tmp_path: Path
) -> None:
    results = shutil.copytree(trained, tmp_path / "results")
    for seed in (0, 1):
        entry = Store(results).run(run_id(expansion, "skd", seed))
        record = entry.record()
        assert record is not None
        entry.objective_path.unlink()
        stated = {n: sha for n, sha in record.files.items() if n != entry.objective_path.name}
        entry.write(record.model_copy(update={"files": stated}))
    found = analyse_study(expansion, results, features=())
    assert [example.method for example in found.examples] == ["frozen"]
    assert found.skipped == {}


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
    found = analyse_study(expansion, results, features=["kd"])
    assert found.skipped.keys() == {teacher.id}
    assert found.skipped[teacher.id].startswith("teacher teacher: ")
    assert len(found.runs) == 7
    measured = found.runs[run_id(expansion, "kd")]
    assert (measured.agreement is None) == (lost != "weights")
    assert (measured.teacher_kl is None) == (lost != "weights")
    assert len(found.teachers) == (lost == "weights")
    panels = [panel.what for panel in found.embeddings[tiny.PAIR].panels]
    assert panels == (["teacher", "kd"] if lost == "logits" else ["kd"])
    assert len(found.examples) == (2 if lost == "weights" else 0)


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
    found = analyse_study(expansion, results, features=())
    assert found.teachers == {}
    assert "not finite" in found.skipped[teacher.id]


def teacher_record(results: Path, expansion: Expansion) -> Path:
    return teacher_of(expansion, results).record_path


def test_a_study_without_its_data_set_is_an_error_unless_all_is_known(
    expansion: Expansion, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: object) -> None:
        raise DataError("not at hand")

    monkeypatch.setattr("skd.data.load_dataset", absent)
    analyse_study(expansion, copy)
    (copy / "tiny" / "analysis.json").unlink()
    with pytest.raises(DataError, match="not at hand"):
        analyse_study(expansion, copy)


def test_the_command_tells_what_it_did(
    expansion: Expansion,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(analyse_command, "load_expansion", lambda *_: expansion)
    Store(copy).run(run_id(expansion, "kd")).record_path.write_text("{")
    analyse_command.analyse("tiny", copy)
    said = capsys.readouterr()
    assert said.out == f"6 runs analysed: {copy}/tiny/analysis.json\n"
    assert said.err.startswith(f"skipped {run_id(expansion, 'kd')}: record.json is damaged")
    with pytest.raises(StudyError, match=r"unknown method 'kdd'.*did you mean 'kd'"):
        analyse_command.analyse("tiny", copy, ["kdd"])
