"""`skd analyse` on a tiny study: what it computes, reuses and leaves out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import softmax
from scipy.stats import entropy

from baselines.simplifier import Simplifier, SimplifierSettings
from skd.analyses.analyse import analyse_study
from skd.analyses.measures import logit_measures, teacher_agreement
from skd.cli import analyse as analyse_command
from skd.data.images import DataError, Images
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.expansion_files import write_expansion
from skd.study.sheet import StudyError
from tests.builders import tiny
from tests.builders.analyses import LOGITS, MEASURES, OTHER, files, logits_of, run_id, teacher_of
from tests.builders.simplifiers import context_of

pytestmark = pytest.mark.usefixtures("few_images")

# Results.


def test_measures_of_every_run_and_teacher(
    expansion: Expansion, analysed: Path, images: Images
) -> None:
    analysis, arrays = files(analysed)
    store, labels = Store(analysed), images.test_labels.numpy()
    beside = logits_of(teacher_of(expansion, analysed))
    distilled = {run_id(expansion, m, s) for m in ("kd", "skd") for s in (0, 1)}
    distilled.add(run_id(expansion, "frozen", 1))
    alone = {run_id(expansion, "student", seed) for seed in (0, 1)}
    assert analysis.runs.keys() == distilled | alone
    for identity, measures in analysis.runs.items():
        record, logits = store.run(identity).record(), logits_of(store.run(identity))
        assert measures.top1 == pytest.approx(record.last.top1, abs=0.6)  # the logits are fp16
        expected = logit_measures(logits, labels)
        if identity in distilled:
            expected |= teacher_agreement(logits, beside)
        else:
            assert measures.agreement is None
            assert measures.teacher_kl is None
        values = json.loads(
            measures.model_dump_json(exclude_none=True, exclude={"source", "logits", "possible"})
        )
        assert values == json.loads(json.dumps(expected))
        assert measures.logits == record.files[LOGITS]
    teacher = analysis.teachers[teacher_of(expansion, analysed).id]
    assert set(type(teacher).model_fields) == MEASURES
    assert teacher.top1 == pytest.approx(100 * (beside.argmax(1) == labels).mean())
    assert analysis.classes == images.classes
    assert analysis.skipped == {}
    assert len(analysis.teachers) == 1  # the other teacher's file is missing
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


def test_panels_show_the_teacher_and_the_requested_methods(
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
    assert other.panels == pair.panels[1:2]  # the student alone belongs to each pair
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
        simplifier = Simplifier(settings, context_of(10))
        weights = load_file(entry.objective_path)
        simplifier.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
        t = settings.temperature
        assert example.temperature == t == 4
        with torch.no_grad():
            simplified = simplifier.double().simplify(torch.from_numpy(teacher)).numpy() / t
        expected = {
            "raw": teacher,
            "softened": teacher / t,
            "simplified": simplified,
            "student": logits_of(entry)[:64],
        }
        for name, values in expected.items():
            stored = arrays[getattr(example, name)]
            assert stored.dtype == np.float32
            np.testing.assert_allclose(stored, softmax(values[places], axis=1), atol=1e-5)
    skd, frozen = ((arrays[e.softened], arrays[e.simplified]) for e in analysis.examples)
    np.testing.assert_allclose(*frozen, atol=1e-6)  # W_o = 0: SKD is KD
    assert np.abs(skd[0] - skd[1]).max() > 1e-4


# Reuse of stored results.


def test_nothing_is_computed_twice_and_the_files_stay_the_same(
    expansion: Expansion, copy: Path, computed: Counter
) -> None:
    before = {path.name: path.read_bytes() for path in (copy / "tiny").iterdir()}
    assert before.keys() == {"analysis.json", "analysis.npz"}
    analyse_study(expansion, copy)
    assert computed == {}
    assert {path.name: path.read_bytes() for path in (copy / "tiny").iterdir()} == before
    # Computed again, they have the same bytes.
    shutil.rmtree(copy / "tiny")
    analyse_study(expansion, copy)
    assert computed == {
        "logit_measures": 8,
        "class_correlation": 5,
        "network_tsne": 4,
        "select_images": 5,
        "example_distributions": 2,
    }
    assert {path.name: path.read_bytes() for path in (copy / "tiny").iterdir()} == before


def test_a_cached_analysis_imports_no_torch(expansion: Expansion, copy: Path) -> None:
    path = write_expansion(expansion, copy)
    code = (
        "import sys; from pathlib import Path;"
        "from skd.study.expansion_files import read_expansion_file;"
        "from skd.analyses.analyse import analyse_study;"
        f"expansion = read_expansion_file(Path({str(path)!r}));"
        f"analyse_study(expansion, Path({str(copy)!r}), features=());"
        "print('torch' in sys.modules)"
    )

    def imports_torch() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert imports_torch() == "False"
    (copy / "tiny" / "analysis.json").unlink()  # some measures are missing now
    assert imports_torch() == "True"


def test_an_added_run_is_all_that_is_looked_at(
    expansion: Expansion, copy: Path, computed: Counter
) -> None:
    before, _ = files(copy)
    tiny.run(expansion, copy, "frozen", 0)
    after = analyse_study(expansion, copy)
    # The cell has another first finished seed now.
    assert computed == {"logit_measures": 1, "class_correlation": 1, "example_distributions": 1}
    assert after.runs == {
        **before.runs,
        **{(new := run_id(expansion, "frozen", 0)): after.runs[new]},
    }
    assert after.examples[1].seed == 0
    assert after.correlations.keys() - before.correlations.keys() == {new}


def test_other_methods_features_on_request(
    expansion: Expansion, copy: Path, computed: Counter
) -> None:
    analysis = analyse_study(expansion, copy, features=["frozen", "kd"])
    assert computed == {"network_tsne": 1, "select_images": 1}
    assert [panel.what for panel in analysis.embeddings[tiny.PAIR].panels] == [
        "teacher",
        "kd",
        "frozen",
    ]
    assert OTHER not in analysis.embeddings


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


def test_the_command_prints_a_summary(
    expansion: Expansion,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(analyse_command, "load_expansion", lambda *_: expansion)
    Store(copy).run(run_id(expansion, "kd")).record_path.write_text("{")
    analyse_command.analyse("tiny", copy)
    output = capsys.readouterr()
    assert output.out == f"6 runs analysed: {copy}/tiny/analysis.json\n"
    assert output.err.startswith(f"skipped {run_id(expansion, 'kd')}: record.json is damaged")
    with pytest.raises(StudyError, match=r"unknown method 'kdd'.*did you mean 'kd'"):
        analyse_command.analyse("tiny", copy, ["kdd"])
