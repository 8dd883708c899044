"""The figures, from a made-up store and made-up analyses."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from report.figures import class_gains, curves, diagnostics, style, tradeoffs
from report.figures.gallery import Gallery, make_gallery
from report.figures.method_styles import HUES, method_styles
from report.findings import Findings, read_findings
from report.frames.analysis import PairAnalysis
from report.frames.method_variants import SettingCurve
from report.frames.study_frames import DIAGNOSTIC_PREFIX
from report.names import Names
from report.output.write import write_report
from report.tables.sensitivity import sensitivity_table
from skd.analyses.records import (
    Analysis,
    Embedding,
    EmbeddingPanel,
    RunMeasures,
    SimplifierExample,
    analysis_path,
)
from tests.builders.reported_study import FIRST, filled

CLASSES = ("ant", "bee", "cat", "dog")


def write_analyses(folder: Path, study, skipped: dict | None = None) -> None:
    """Write measures of every finished run of the first pair, and arrays of its first seeds."""
    arrays, runs, correlations = {}, {}, {}
    for key in ("resnet20/student", f"{FIRST}/kd", f"{FIRST}/skd"):
        cell = study.cell_by_key(key)
        for seed, identity in cell.runs.items():
            runs[identity] = RunMeasures(
                top1=70.0, nll=1.0 + 0.1 * seed, ece=5.0,
                per_class_top1=(81 if cell.teacher else 80, 70, 60, None),
                reliability=[(10, 90.0, 80.0), (0, None, None)] + [(0, None, None)] * 13,
                source="made up", agreement=None if cell.teacher is None else 80.0 + seed,
            )  # fmt: skip
        correlations[cell.runs[0]] = key
        arrays[key] = np.eye(4, dtype=np.float32)
    teacher = study.teacher("resnet56").id
    correlations[teacher], arrays[teacher] = teacher, np.full((4, 4), 0.5, dtype=np.float32)
    arrays["labels"] = np.array([0, 1, 2, 3])
    arrays["points"] = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    arrays["images"] = np.zeros((2, 3, 8, 8), dtype=np.uint8)
    arrays["values"] = np.full((2, 4), 0.25, dtype=np.float32)
    panels = tuple(
        EmbeddingPanel(what=cell_name, id="x", seed=0, key="points")
        for cell_name in ("teacher", "student", "skd")
    )
    stages = dict.fromkeys(("raw", "softened", "simplified", "student"), "values")
    example = SimplifierExample(
        pair=FIRST, method="skd", seed=0, id="x", temperature=4.0, indices=(5, 6), labels=(1, 3),
        images="images", **stages,
    )  # fmt: skip
    analysis = Analysis(
        study=study.study,
        dataset=study.dataset,
        classes=CLASSES,
        runs=runs,
        teachers={},
        correlations=correlations,
        embeddings={FIRST: Embedding(labels="labels", panels=panels)},
        examples=(example,),
        skipped=skipped or {},
    )
    path = analysis_path(folder, study.study)
    path.parent.mkdir(exist_ok=True)
    path.write_text(analysis.model_dump_json())
    np.savez(path.with_suffix(".npz"), **arrays)


def gallery_of(findings: Findings, workers: int | None = 1) -> Gallery:
    return make_gallery(
        findings.expansion, findings.frames, findings.pairs, findings.analyses, findings.ranking,
        findings.margin, findings.names, workers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    study = filled(folder)
    write_analyses(folder, study)
    return read_findings(study, folder)


@pytest.fixture(scope="module")
def drawings(findings) -> dict:
    return {drawing.name: drawing for drawing in gallery_of(findings).drawings}


def text_of(drawing) -> str:
    return re.search(r"<desc[^>]*>(.*?)</desc>", drawing.inline, re.DOTALL)[1]


def test_there_is_a_figure_of_everything_there_are_data_for(drawings):
    own = {
        name.removeprefix("resnet56--resnet20-") for name in drawings if name.startswith("resnet56")
    }
    assert own == {
        "gains", "seeds", "curves", "cost", "temperature", "watch", "calibration", "classes",
        "correlations", "features", "examples",
    }  # fmt: skip
    assert {"forest", "best-minus-last", "agreement"} <= set(drawings)
    # A pair without analysis and without results of a simplifier.
    assert {name for name in drawings if name.startswith("vgg13")} == {
        "vgg13--MobileNetV2-gains", "vgg13--MobileNetV2-seeds", "vgg13--MobileNetV2-curves",
        "vgg13--MobileNetV2-cost",
    }  # fmt: skip


def test_figures_have_their_numbers_as_alternative_text(drawings):
    pair = "resnet56--resnet20-"
    assert "KD 70.83 % (3 seeds)" in text_of(drawings[f"{pair}seeds"])
    assert "0.50" in text_of(drawings["best-minus-last"])
    assert "KD 81.00 %" in text_of(drawings["agreement"])
    assert "KD 5.00 %" in text_of(drawings[f"{pair}calibration"])
    assert "0.500" in text_of(drawings[f"{pair}correlations"])
    assert "ant, bee, cat and dog" in text_of(drawings[f"{pair}features"])
    assert "seed 0" in text_of(drawings[f"{pair}examples"])
    assert f"log C = {math.log(100):.2f}" in text_of(drawings[f"{pair}watch"])
    assert "71.53 % at T = 8" in text_of(drawings[f"{pair}temperature"])
    counted = "1 reproduced, 1 higher, 1 lower, 4 inconclusive and 0 not run"
    assert counted in text_of(drawings["forest"])
    assert "at 64 ms" in text_of(drawings[f"{pair}cost"])  # 64 images at 1,000 a second


def test_captions_are_single_sentences_without_the_numbers_of_all_methods(drawings):
    for drawing in drawings.values():
        assert drawing.caption.endswith("."), drawing.name
        assert 40 < len(drawing.caption) < 260, drawing.name
    assert drawings["agreement"].caption.endswith("each bar a mean.")
    assert style.first_sentence("At T = 0.5 it is 1.5 %. Next.") == "At T = 0.5 it is 1.5 %."
    assert style.first_sentence("Only one.") == "Only one."


def test_the_page_decides_on_the_methods_colours(drawings):
    inline = drawings["agreement"].inline
    assert "var(--blue)" in inline
    assert not any(tone in inline for tones in HUES.values() for tone in tones)
    assert HUES["blue"][0] in drawings["agreement"].svg


def test_few_epochs_are_shown_completely_and_many_from_the_last_quarter():
    def epochs(count: int) -> pd.DataFrame:
        rows = [("kd", seed, e, e + 2.0 * seed) for seed in (0, 1) for e in range(1, count + 1)]
        return pd.DataFrame(rows, columns=["method", "seed", "epoch", "test_top1"])

    low, high = curves.accuracy_limits(epochs(9))
    sd = math.sqrt(2)
    assert 1 < low + sd < 2
    assert 10 < high - sd < 11
    low, high = curves.accuracy_limits(epochs(40))
    assert 30 < low < 32 < 42 < high


def plotted(monkeypatch, module, draw, panels=(1, 1)):
    """Return the axes into which a figure is drawn, and its title."""
    seen = {}

    def render(name, title, description, plot, *_):
        seen["axes"] = Figure().subplots(*panels)
        plot(seen["axes"])
        seen["title"] = title
        return name

    monkeypatch.setattr(module, "render_figure", render)
    assert draw() is not None
    return seen["axes"], seen["title"]


def class_gain_axes(monkeypatch, classes, **accuracies):
    runs = {
        method: [SimpleNamespace(per_class_top1=values)] for method, values in accuracies.items()
    }
    analysis = PairAnalysis("a", classes, runs, None, {}, {}, np.array([]), ())
    styles = method_styles(list(accuracies), Names())
    return plotted(
        monkeypatch,
        class_gains,
        lambda: class_gains.per_class_gain(analysis, styles, "name", "pair", list(accuracies)),
    )


def test_few_classes_are_named_in_the_order_of_the_first_methods_gains(monkeypatch):
    axes, title = class_gain_axes(
        monkeypatch, CLASSES,
        student=(50, 50, None, 50), kd=(51, 55, None, 49), skd=(58, 52, None, 50),
    )  # fmt: skip
    assert title == "Which classes gain"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bee", "ant", "dog"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["kd"] == [5, 1, -1]
    assert lines["skd"] == [2, 8, 0]
    assert axes.get_xlabel() == "class, sorted by the gain of kd"


def test_many_classes_are_sorted_for_each_method(monkeypatch):
    count = class_gains.MAX_NAMED_CLASSES + 1
    axes, title = class_gain_axes(
        monkeypatch, tuple(map(str, range(count))), student=(0,) * count, kd=range(count)
    )
    assert title == "Spread of the gain over classes"
    assert list(axes.lines[1].get_ydata()) == list(range(count))[::-1]


@pytest.mark.parametrize(("distance", "written"), [(0.0009, True), (0.0011, False)])
def test_rounding_errors_of_the_simplifiers_distance_are_not_drawn(monkeypatch, distance, written):
    data = {f"{DIAGNOSTIC_PREFIX}{key}": [0.5, 0.5] for key in diagnostics.PANELS}
    data[f"{DIAGNOSTIC_PREFIX}kl_softened_simplified"] = [0.0, distance]
    epochs = pd.DataFrame({"method": "skd", "seed": 0, "epoch": [1, 2], **data})
    styles = method_styles(["skd"], Names())
    axes, _ = plotted(
        monkeypatch,
        diagnostics,
        lambda: diagnostics.simplifier_diagnostics(epochs, styles, "name", "pair", 10),
        (2, 2),
    )
    panel = list(axes.flat)[list(diagnostics.PANELS).index("kl_softened_simplified")]
    assert bool(panel.lines) is not written
    texts = "".join(text.get_text() for text in panel.texts)
    assert ("below 0.001 nats in all runs" in texts) is written


CURVES = [
    SettingCurve("kd", "weight", {1.0: "kd", 2.0: "skd+kd", 8.0: "T-8"}),
    SettingCurve("kd", "weight", {1.0: "skd", 2.0: "T-8", 4.0: "not run"}),
]


def test_a_swept_setting_is_a_curve_with_its_values_and_intervals(findings) -> None:
    styles = method_styles(findings.expansion.methods, findings.names)
    drawing = tradeoffs.sensitivity(findings.pairs[0], CURVES, styles, "sweep", "a pair")
    text = text_of(drawing)
    assert "against kd: weight, all else equal; bars are 95 % intervals of the mean" in text
    assert "kd: 70.83 % at 1, 72.77 % at 2, 71.53 % at 8" in text
    assert "skd: 67.83 % at 1, 71.53 % at 2" in text
    alone = [SettingCurve("kd", "weight", {1.0: "kd", 2.0: "not run", 4.0: "nor this"})]
    assert tradeoffs.sensitivity(findings.pairs[0], alone, styles, "sweep", "a pair") is None


def test_a_swept_settings_table_has_a_row_for_each_value(findings, monkeypatch) -> None:
    monkeypatch.setattr("report.tables.sensitivity.setting_curves", lambda *_: CURVES[:1])
    table = sensitivity_table(findings.expansion, findings.pairs[:1])
    assert [[entry.text for entry in row[1:5]] for row in table.rows] == [
        ["kd: weight", "1", "kd", "70.83 ± 1.04"],
        ["kd: weight", "2", "skd+kd", "72.77 ± 1.00"],
        ["kd: weight", "8", "T-8", "71.53 ± 0.93"],
    ]
    low, high = findings.pairs[0].cell("kd").last.interval
    assert table.rows[0][5].text == f"{low:.2f} to {high:.2f}"
    monkeypatch.setattr("report.tables.sensitivity.setting_curves", lambda *_: [])
    assert sensitivity_table(findings.expansion, findings.pairs) is None


def test_figures_are_files_of_their_own_and_the_same_twice(findings, drawings):
    again = {drawing.name: drawing for drawing in gallery_of(findings, workers=2).drawings}
    assert again == drawings
    for drawing in drawings.values():
        assert drawing.pdf.startswith(b"%PDF")
        assert drawing.svg.startswith("<?xml")
        ids = re.findall(r'\bid="([^"]+)"', drawing.inline)
        assert len(ids) == len(set(ids))
        assert all(identity.startswith(drawing.name) for identity in ids)
        assert "currentColor" in drawing.inline


def test_what_could_not_be_analysed_is_reported(tmp_path):
    study = filled(tmp_path)
    write_analyses(tmp_path, study, {"a": "no test logits at hand", "b": "no test logits at hand"})
    note = "Not analysed completely: 2 runs: no test logits at hand (2)"
    assert note in read_findings(study, tmp_path).problems


def test_damaged_analyses_are_reported_and_the_rest_is_shown(tmp_path):
    study = filled(tmp_path)
    write_analyses(tmp_path, study)
    path = analysis_path(tmp_path, study.study)
    path.with_suffix(".npz").write_bytes(b"PK damaged")
    findings = read_findings(study, tmp_path)
    assert "analysis.npz cannot be read; skd analyse small writes it again" in findings.problems
    assert findings.tables["outputs"].rows[0][3].text == "1.100 ± 0.100"
    path.write_text("{")
    findings = read_findings(study, tmp_path)
    assert findings.analyses is None
    assert "analysis.json cannot be read" in write_report(study, tmp_path).read_text()
