"""The report on a small made-up store, against numbers computed by hand."""

import csv
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import report.cli
from report import formats
from report.analysis import read_analysis
from report.frame import build_frames
from report.headline import average_gains, headline
from report.literature import PublishedError, published_values
from report.look import looks
from report.render import render
from report.statistics import mean_difference, paired_difference, summarise
from report.tables import main_table, outcome_counts
from skd.records import Accuracy, Collapse, Cost, Epoch, Failure, Record, TeacherCard
from skd.sheet import StudyError
from skd.spec import DatasetSpec, ImportedTeacher, MethodSpec, Recipe, RunSpec, TrainedTeacher
from skd.spec import SimplifierSpec as Simplifier
from skd.spec import TermSpec as Term
from skd.store import Store
from skd.study import Cell, Expansion, ImageFacts, NetworkFacts, TeacherNode

ROOT = Path(__file__).resolve().parents[1]
EVIL = "<script>alert('x')</script> & \"quoted\" | pipe"
CE = Term(term="cross_entropy", version=1, settings={"weight": 1.0})
KD = Term(term="kd", version=1, settings={"weight": 0.9, "temperature": 4.0})
METHODS = {
    "student": MethodSpec(terms=(CE,)),
    "kd": MethodSpec(terms=(CE, KD)),
    "skd": MethodSpec(terms=(CE, KD), simplifier=Simplifier(version=1, settings={"heads": 1})),
}
IMAGES = ImageFacts(train_images=50_000, test_images=10_000, size=32, channels=3, classes=100)
NETWORK = NetworkFacts(parameters=10, multiply_adds=1000, activations=100, layers=5)
PAIRS = (("resnet56", "resnet20"), ("resnet110", "resnet20"))
FIRST, SECOND = "resnet56--resnet20", "resnet110--resnet20"
# Last-epoch top-1 by (cell's pair, method) and seed; what is not here has no record.
ACCURACY = {
    ("resnet20", "student"): {0: 68.0, 1: 69.0, 2: 70.0},
    (FIRST, "kd"): {0: 70.0, 1: 70.5, 2: 72.0},
    (FIRST, "skd"): {0: 71.0, 1: 60.0, 2: 72.5},  # seed 1 collapsed
    (SECOND, "kd"): {0: 70.2},  # seed 1 failed, seed 2 is missing
    (SECOND, "skd"): {0: 69.0},  # seed 1 is truncated, seed 2 is missing
}


def make_study(dataset: DatasetSpec) -> Expansion:
    recipe = Recipe(epochs=3, milestones=(2,))
    nodes = []
    for place, (network, _) in enumerate(PAIRS):
        spec = ImportedTeacher(network=network, dataset=dataset, sha256=str(place) * 64)
        nodes.append(
            TeacherNode(name=network, id=spec.identity, spec=spec, origin=f"{network}.pth")
        )
    cells = []
    for (pair, method), node in (
        (("resnet20", "student"), None),
        *(((pair, m), n) for pair, n in zip((FIRST, SECOND), nodes, strict=True) for m in METHODS),
    ):
        if node is not None and method == "student":
            continue
        run = RunSpec(
            dataset=dataset,
            network="resnet20",
            teacher=node.spec if node else None,
            method=METHODS[method],
            recipe=recipe,
            seed=0,
        )
        runs = {s: run.model_copy(update={"seed": s}).identity for s in range(3)}
        name = node.name if node else None
        cells.append(
            Cell(pair=pair, method=method, teacher=name, student="resnet20", spec=run, runs=runs)
        )
    return Expansion(
        study="small",
        sources="none",
        title="A small study",
        description="Made up.",
        sheet="title: A small study\n",
        dataset=dataset,
        recipe=recipe,
        methods=tuple(METHODS),
        pairs=PAIRS,
        seeds=(0, 1, 2),
        teachers=tuple(nodes),
        cells=tuple(cells),
        images=IMAGES,
        networks=dict.fromkeys(("resnet56", "resnet110", "resnet20"), NETWORK),
    )


def make_record(cell: Cell, seed: int, top1: float) -> Record:
    simplified = cell.spec.method.simplifier is not None
    collapsed = simplified and top1 == 60.0
    diagnostics = {
        "entropy_raw": 0.4,
        "entropy_softened": 3.6,
        "entropy_simplified": 4.6 if collapsed else 3.7,
        "top1_raw": 99.0,
        "top1_simplified": 20.0 if collapsed else 98.5,
        "kl_softened_simplified": 0.9 if collapsed else 0.02,
        "kl_simplified_student": 0.3,
    }
    epochs = tuple(
        Epoch(
            epoch=number,
            learning_rate=0.05,
            train_losses={"total": 2.0, "cross_entropy": 2.0},
            train_top1=accuracy,
            test_loss=1.5,
            test_top1=accuracy,
            test_top5=accuracy + 20,
            diagnostics=diagnostics if simplified else {},
            seconds=2.0,
            images_per_second=1000.0,
        )
        for number, accuracy in enumerate((top1 - 9, top1 + 0.5, top1), start=1)
    )
    collapse = Collapse(collapsed=collapsed, reason="lost the labels" if collapsed else "")
    return Record(
        id=cell.runs[seed],
        spec=cell.run(seed),
        environment={"torch": "2.15.0", "gpu": None, "host": {"cpu": f"cpu {seed}"}},
        execution={"device": "cpu"},
        num_classes=100,
        epochs=epochs,
        last=Accuracy(epoch=3, top1=top1, top5=top1 + 20),
        best=Accuracy(epoch=2, top1=top1 + 0.5, top5=top1 + 20.5),
        cost=Cost(
            train_seconds=6.0,
            seconds_per_epoch=2.0,
            images_per_second=1000.0,
            peak_memory_bytes=2**20,
            parameters=278324,
            extra_parameters=40000 if simplified else 0,
            multiply_adds=41,
            sessions=1,
        ),
        collapse=collapse if simplified else None,
        files={},
        finished_at="2025-01-01T00:00:00Z",
    )


def fill(store: Store, study: Expansion) -> None:
    for cell in study.cells:
        for seed, top1 in ACCURACY[cell.pair, cell.method].items():
            store.run(cell.runs[seed]).write(make_record(cell, seed, top1))
    failed = store.run(study.cell(SECOND, "kd").runs[1])
    failed.write(
        Failure(
            id=failed.id,
            reason=EVIL,
            kind="FloatingPointError",
            details="",
            epoch=1,
            failed_at="2025-01-01T00:00:00Z",
            environment={},
        )
    )
    truncated = store.run(study.cell(SECOND, "skd").runs[1])
    truncated.folder.mkdir(parents=True)
    truncated.record_path.write_text('{"schema_version": 1, "id": "')
    teacher = study.teacher("resnet56")
    store.teacher(teacher.id).write(
        TeacherCard(
            id=teacher.id,
            kind="imported",
            network="resnet56",
            dataset=study.dataset.name,
            origin="resnet56.pth",
            test_top1=72.63,
            test_top5=92.0,
            sha256="ab" * 32,
            parameters=861620,
        )
    )


@pytest.fixture(scope="module")
def study() -> Expansion:
    return make_study(DatasetSpec(name="cifar100"))


@pytest.fixture(scope="module")
def results(study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    fill(Store(folder), study)
    return folder


@pytest.fixture(scope="module")
def frames(study, results):
    return build_frames(study, Store(results))


@pytest.fixture(scope="module")
def rows(study, frames) -> dict:
    table = main_table(study, frames, published_values(study.dataset))
    return {(t.teacher, row.method): row for t in table for row in t.rows}


@pytest.fixture(scope="module")
def page(study, results) -> str:
    return render(study, results).read_text()


class Checker(HTMLParser):
    """Fails on tags that do not close in order; gathers ids, text and what would be loaded."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.loads, self.tags, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.loads.append(value)

    def handle_endtag(self, tag):
        assert [tag] == self.open[-1:], f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, data):
        if not (self.open and self.open[-1] in ("style", "script")):
            self.text.append(data)


def parsed(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert not checker.open
    return checker


def test_statistics_agree_with_scipy():
    treated, control = [70.0, 70.5, 72.0, 71.1], [68.0, 69.0, 70.0, 70.4]
    found = paired_difference(dict(enumerate(treated)), dict(enumerate(control)))
    low, high = stats.ttest_rel(treated, control).confidence_interval(0.95)
    assert (found.n, found.mean) == (4, pytest.approx(np.subtract(treated, control).mean()))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.separated is True
    assert summarise(treated).sd == pytest.approx(np.std(treated, ddof=1))


def test_statistics_of_few_equal_and_missing_values():
    assert summarise([]).mean is None
    assert (summarise([70.0]).mean, summarise([70.0]).sd) == (70.0, None)
    one = mean_difference([1.0])
    assert (one.low, one.high, one.separated) == (None, None, None)
    assert formats.interval(one) == "one seed, no interval"
    same = mean_difference([1.0, 1.0])
    assert (same.low, same.high) == (1.0, 1.0)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    with pytest.raises(ValueError, match="not finite"):
        summarise([70.0, math.nan])


def test_formats():
    assert formats.signed(-0.004) == "0.00"
    assert formats.signed(-1.5) == "\N{MINUS SIGN}1.50"
    assert formats.number(math.nan) == formats.number(None) == formats.ABSENT
    assert formats.listing(["a", "b", "c"]) == "a, b and c"
    assert formats.plural(1, "run") == "1 run"
    assert [formats.duration(s) for s in (6.0, 600.0, 36000.0)] == ["6 s", "10 min", "10.0 h"]


def test_frame_has_every_expected_run_and_shares_the_student_alone(study, frames):
    assert len(frames.runs) == 2 * 3 * 3
    alone = frames.runs[frames.runs["method"] == "student"]
    assert alone["shared"].all()
    assert set(alone["id"]) == set(study.cell("resnet20", "student").runs.values())
    assert list(alone.groupby("pair")["last_top1"].mean()) == [69.0, 69.0]
    assert outcome_counts(frames) == {"done": 11, "failed": 1, "missing": 2, "unreadable": 1}
    assert len(frames.epochs) == (6 + 6 + 2) * 3


def test_table_has_the_numbers_computed_by_hand(rows):
    kd = rows["resnet56", "kd"]
    assert kd.last.mean == pytest.approx(212.5 / 3)
    assert kd.last.sd == pytest.approx(math.sqrt(13 / 12))
    assert kd.best.mean == pytest.approx(212.5 / 3 + 0.5)
    assert kd.gain.mean == pytest.approx((2 + 1.5 + 2) / 3)
    low, high = stats.t.interval(0.95, 2, loc=5.5 / 3, scale=stats.sem([2, 1.5, 2]))
    assert (kd.gain.low, kd.gain.high) == (pytest.approx(low), pytest.approx(high))
    assert (kd.done, kd.expected, kd.marks) == (3, 3, ())
    single = rows["resnet110", "kd"]
    assert (single.last.mean, single.last.sd) == (70.2, None)
    assert (single.gain.n, single.gain.low) == (1, None)
    assert single.gain.mean == pytest.approx(2.2)
    assert rows["resnet110", "student"].gain is None


def test_outcomes_are_marked(rows):
    def texts(key):
        return [mark.text for mark in rows[key].marks]

    assert texts(("resnet56", "skd")) == ["1 collapsed"]
    assert texts(("resnet110", "kd")) == ["1 failed", "1 not run"]
    assert texts(("resnet110", "skd")) == ["1 unreadable", "1 not run"]


def test_published_values_stand_beside_the_epoch_they_report(rows):
    kd = rows["resnet56", "kd"]
    assert kd.published.reported_epoch == "last"
    assert kd.against_published == pytest.approx(212.5 / 3 - kd.published.top1)
    assert rows["resnet56", "skd"].published is None


@pytest.mark.parametrize(
    "dataset",
    [
        DatasetSpec(name="digits"),
        DatasetSpec(name="cifar100", split="validation"),
        DatasetSpec(name="cifar100", train_limit=1000),
    ],
)
def test_no_published_values_for_other_data(dataset, tmp_path):
    assert published_values(dataset) == {}
    other = make_study(dataset)
    fill(Store(tmp_path), other)
    html = render(other, tmp_path).read_text()
    assert "not available" not in html
    assert "RepDistiller" not in html
    assert "Published" not in (tmp_path / "small/report/results.md").read_text()


def test_published_file_with_an_error_names_file_and_line(tmp_path):
    header = "teacher,student,method,top1,reported_epoch,n_runs,source\n"
    file = tmp_path / "cifar100.csv"
    for lines, message in (
        ("a,b,skd,7O.1,last,,paper\n", "cifar100.csv, line 2: top1"),
        ("a,b,skd,70.1,final,,paper\n", "line 2: reported_epoch"),
        ("a,b,skd,70.1,last,,paper\n" * 2, "line 3: .* twice"),
    ):
        file.write_text(header + lines)
        with pytest.raises(PublishedError, match=message):
            published_values(DatasetSpec(name="cifar100"), tmp_path)


def test_shipped_published_values_have_no_skd_number():
    assert not [key for key in published_values(DatasetSpec(name="cifar100")) if "skd" in key[2]]


def test_headline_ranks_only_what_has_an_interval_and_says_when_not_separated(frames):
    averages = {average.method: average for average in average_gains(frames)}
    assert averages["kd"].by_seed == pytest.approx({0: 2.1})
    assert "one common seed, so no interval" in headline(frames)[0]
    first = frames.runs[frames.runs["teacher"] == "resnet56"]
    answer = headline(type(frames)(first, frames.epochs, frames.teachers, frames.readings))
    assert answer[0].startswith("Averaged over 1 pair, kd has the largest mean gain")
    assert "+1.83 points" in answer[0]
    assert "excludes zero" in answer[1]
    assert "the two are not separated" in answer[2]
    assert "1 run the simplified teacher collapsed" in answer[-1]


def test_headline_tells_methods_that_some_pair_goes_without(frames):
    runs = frames.runs[(frames.runs["teacher"] == PAIRS[0][0]) | (frames.runs["method"] != "kd")]
    answer = headline(type(frames)(runs, frames.epochs, frames.teachers, frames.readings))
    assert "Not ranked, since not every pair has them: kd." in answer
    assert not any("since not every pair" in sentence for sentence in headline(frames))


def test_headline_claims_no_gain_where_there_is_none(frames):
    runs = frames.runs.assign(
        last_top1=frames.runs["last_top1"].where(
            frames.runs["method"] == "student", frames.runs["last_top1"] - 30
        )
    )
    answer = headline(type(frames)(runs, frames.epochs, frames.teachers, frames.readings))
    assert "no method ranked gains over the student alone; kd comes closest" in answer[0]


def test_page_is_well_formed_and_self_contained(page):
    checker = parsed(page)
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.loads
    assert all(load.startswith("#") for load in checker.loads)
    missing = {load[1:] for load in checker.loads} - set(checker.ids)
    assert not missing
    assert not re.search(r"url\((?!#)|@import", page)
    assert not {"script", "link", "img", "iframe"} & set(checker.tags)
    assert not re.search(r"\b(nan|NaN|None|NaT|inf|<NA>)\b", " ".join(checker.text))
    assert checker.tags.count("svg") == 2 + 2 + 8


def test_page_says_what_it_must(page):
    text = " ".join(" ".join(parsed(page).text).split())
    for words in (
        "Student-friendly Knowledge Distillation",
        "assumptions of this project, not the paper's",
        "11 of 15 runs done, 1 failed, 1 unreadable, 2 not run",
        "Collapsed: 1 run",
        "lost the labels",
        "FloatingPointError",
        "cannot be read",
        "not imported yet",
        "title: A small study",
        "one seed, no interval",
        "cpu 0",
        "epochs 3 instead of 240",
    ):
        assert words in text


def test_hostile_text_is_escaped(page, results):
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    markdown = (results / "small/report/results.md").read_text()
    assert "<script" not in markdown


def test_no_path_of_this_machine_is_told(page, results):
    assert str(results) not in page


def test_output_is_the_same_twice(study, results, page):
    folder = results / "small" / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    render(study, results)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"index.html", "results.md", "runs.csv", "epochs.csv"}


def test_csv_keeps_whole_numbers_and_gaps(results, page):
    with (results / "small/report/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert rows[0]["parameters"] == "278324"
    assert {row["last_top1"] for row in rows if row["outcome"] != "done"} == {""}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_nothing_done_yet_renders(split, tmp_path):
    html = render(make_study(DatasetSpec(name="cifar100", split=split)), tmp_path).read_text()
    checker = parsed(html)
    assert "svg" not in checker.tags
    assert "No run has finished yet" in html
    assert "0 of 15 runs done, 15 not run" in html


def test_values_that_are_not_numbers_make_no_number(study, tmp_path):
    fill(Store(tmp_path), study)
    entry = Store(tmp_path).run(study.cell(FIRST, "kd").runs[0])
    data = json.loads(entry.record_path.read_text())
    data["last"]["top1"] = math.nan
    entry.record_path.write_text(json.dumps(data))
    other = Store(tmp_path).run(study.cell(FIRST, "kd").runs[1])
    entry_of_another = other.record_path.read_text().replace(other.id, "0" * 16)
    other.record_path.write_text(entry_of_another)
    frames = build_frames(study, Store(tmp_path))
    kd = frames.runs[(frames.runs["teacher"] == "resnet56") & (frames.runs["method"] == "kd")]
    assert list(kd["outcome"]) == ["unreadable", "unreadable", "done"]
    assert kd["last_top1"].isna().tolist() == [True, True, False]
    shown = parsed(render(study, tmp_path).read_text()).text
    assert not {text for text in shown if text.strip().lower() == "nan"}


def test_analysis_is_shown_and_a_damaged_one_is_told(study, tmp_path):
    fill(Store(tmp_path), study)
    ids = study.cell(FIRST, "kd").runs.values()
    runs = {
        identity: {"top1": 70, "nll": nll, "ece": 5.0, "agreement": None, "per_class_top1": []}
        for identity, nll in zip(ids, (1.0, 1.1, 1.5), strict=True)
    }
    path = tmp_path / "small" / "analysis.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"study": "small", "runs": runs}))
    assert "1.200 ± 0.265" in render(study, tmp_path).read_text()
    path.write_text("{")
    assert read_analysis(path)[0] is None
    assert "analysis.json cannot be read" in render(study, tmp_path).read_text()
    assert read_analysis(tmp_path / "none.json") == (None, None)


def test_looks_are_distinct_for_many_methods():
    found = looks(["student", *(f"m{i}" for i in range(30))], "student")
    assert len({(look.colour, str(look.dash)) for look in found.values()}) == 31


def test_report_never_imports_torch(study, results, tmp_path):
    path = tmp_path / "study.json"
    path.write_text(study.model_dump_json(by_alias=True))
    code = (
        "import sys, pathlib\n"
        "from report.render import render\n"
        "import report.cli\n"
        "from skd.study import Expansion\n"
        f"study = Expansion.model_validate_json(pathlib.Path({str(path)!r}).read_text())\n"
        f"render(study, pathlib.Path({str(results)!r}))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_command_prints_the_path_or_the_error(study, results, monkeypatch, capsys):
    monkeypatch.setattr(report.cli, "load_expansion", lambda name, folder: study)
    monkeypatch.setattr(sys, "argv", ["skd-report", "small", "--results", str(results)])
    with pytest.raises(SystemExit) as done:
        report.cli.main()
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == f"{results}/small/report/index.html"

    def refuse(name, folder):
        raise StudyError(f"unknown study '{name}'")

    monkeypatch.setattr(report.cli, "load_expansion", refuse)
    with pytest.raises(SystemExit) as wrong:
        report.cli.main()
    assert wrong.value.code == 2
    assert capsys.readouterr().err == "skd-report: unknown study 'small'\n"


def test_a_failed_teachers_reason_is_read_from_the_teachers_own_folder(study, tmp_path):
    alone = study.cell("resnet20", "student")
    spec = TrainedTeacher(run=alone.spec)
    node = TeacherNode(name=PAIRS[0][0], id=spec.identity, spec=spec, origin="trained here, seed 0")
    trained = study.model_copy(update={"teachers": (node, study.teachers[1])})
    # The student alone of the same spec, and so of the same identity, has finished.
    Store(tmp_path).run(alone.runs[0]).write(make_record(alone, 0, 68.0))
    note = Failure(
        id=node.id,
        reason="out of memory",
        kind="E",
        details="",
        epoch=0,
        failed_at="",
        environment={},
    )
    Store(tmp_path).teacher(node.id).write(note)
    teachers = build_frames(trained, Store(tmp_path)).teachers.set_index("name")
    assert teachers.loc[node.name, "why"] == "training: failed (out of memory)"


def test_frames_of_an_empty_store_keep_their_columns(study, tmp_path):
    frames = build_frames(study, Store(tmp_path))
    assert isinstance(frames.epochs, pd.DataFrame)
    assert "test_top1" in frames.epochs
    assert not frames.teachers["at_hand"].any()
