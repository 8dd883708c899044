"""Each reason to doubt a study: when it is found, how serious it is, and what it says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from report.findings import Findings, read_findings
from report.formats import signed
from report.frames.averages import average_gains
from report.names import Names
from report.sanity.accuracies import (
    chance_ceiling,
    equal_methods,
    few_seeds,
    students_at_chance,
    wide_spread,
)
from report.sanity.doubts import Doubt
from report.sanity.origins import pooled_code, pooled_machines, pooled_teachers
from report.sanity.simplifiers import collapsed_simplifiers, unmoved_simplifiers
from report.sanity.teachers import doubtful_teachers, students_above_teachers
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.spec import Recipe
from tests.builders.findings import make_pair
from tests.builders.reported_study import (
    TODAYS,
    filled,
    make_card,
    make_record,
    make_study,
)

NAMES = Names({"kd": "KD", "dkd": "DKD", "skd": "SKD", "skd+kd": "SKD + KD"})
ALONE = [69.0, 69.5, 70.0]
KL = "diagnostic_kl_softened_simplified"


def only(doubts: list[Doubt]) -> Doubt:
    (doubt,) = doubts
    return doubt


# Teachers.


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    return read_findings(filled(folder), folder)


def with_doubts(findings: Findings, top1: dict[str, float]):
    teachers = findings.frames.teachers.copy()
    for name, value in top1.items():
        teachers.loc[teachers["name"] == name, ["test_top1", "doubts"]] = [value, "a reason"]
    return replace(findings.frames, teachers=teachers)


def test_teachers_at_chance_are_fatal_if_no_pair_has_a_better_one(findings: Findings) -> None:
    def doubt(**top1: float) -> Doubt:
        return only(doubtful_teachers(with_doubts(findings, top1), findings.pairs, 100, NAMES))

    some = doubt(resnet56=1.9)
    assert (some.kind, some.severity) == ("teacher-at-chance", "caution")
    assert some.text.startswith(
        "Teacher resnet56 is at or near chance level, so the results of its"
    )
    assert some.details == ("resnet56: a reason",)
    every = doubt(resnet56=1.0, resnet110=1.2, vgg13=0.9)
    assert every.severity == "fatal"
    assert every.text.startswith("Teachers resnet56, resnet110 and vgg13 are at or near chance")
    below = doubt(vgg13=50.0)
    assert (below.kind, below.severity) == ("teacher-below-published", "caution")
    assert not doubtful_teachers(findings.frames, findings.pairs, 100, NAMES)


def test_a_student_alone_that_is_as_good_as_its_teacher() -> None:
    def pair(teacher_top1: float | None, name: str = "resnet56"):
        return make_pair({"student": ALONE, "kd": ALONE}, name, teacher_top1=teacher_top1)

    above = only(students_above_teachers([pair(69.4)], NAMES))
    assert (above.kind, above.severity) == ("student-above-teacher", "fatal")
    assert "as good as its teacher (student alone 69.5 %, teacher 69.4 %)" in above.text
    one_of_two = only(students_above_teachers([pair(69.4), pair(72.0, "vgg13")], NAMES))
    assert one_of_two.severity == "caution"
    assert "teacher on resnet56 → resnet20 (student alone 69.5 %" in one_of_two.text
    near = only(students_above_teachers([pair(69.9), pair(69.8, "vgg13")], NAMES))
    assert (near.kind, near.severity) == ("student-near-teacher", "caution")
    assert "in all pairs" in near.text
    assert len(near.details) == 2
    assert not students_above_teachers([pair(70.1)], NAMES)  # more than 0.5, the spread
    assert not students_above_teachers([pair(None)], NAMES)
    assert not students_above_teachers([make_pair({"kd": ALONE}, teacher_top1=1.0)], NAMES)


# Accuracies.


def test_chance_is_what_guessing_reaches() -> None:
    # Of 10,000 images in 100 classes, guessing gets 1 % with a standard error of 0.0995.
    assert chance_ceiling(100, 10_000) == pytest.approx(1.2985, abs=1e-4)


def test_methods_at_chance() -> None:
    def doubts(**accuracies: list[float]) -> list[Doubt]:
        return students_at_chance([make_pair(accuracies)], 100, 10_000, NAMES)

    assert not doubts(student=ALONE, kd=[1.4, 1.5])
    some = only(doubts(student=ALONE, kd=[70.0, 1.0, 1.2]))
    assert some.severity == "caution"
    assert "KD, resnet56 → resnet20 (seed 1: 1.00 %, seed 2: 1.20 %). Its mean" in some.text
    every = only(doubts(student=[1.0], kd=[0.9, 1.1]))
    assert every.severity == "fatal"
    assert every.text.startswith("Every run is at chance level (at most 1.30 % on 100 classes)")
    assert not doubts(student=[], kd=[])


def test_methods_that_are_all_equal() -> None:
    same = make_pair({"student": ALONE, "kd": ALONE, "dkd": ALONE})
    other = make_pair({"student": ALONE, "kd": [70.0, 71.0, 72.0]}, "vgg13")
    assert only(equal_methods([same], NAMES)).severity == "fatal"
    some = only(equal_methods([same, other], NAMES))
    assert some.severity == "caution"
    assert "in every seed on resnet56 → resnet20." in some.text
    assert not equal_methods([other], NAMES)
    # On few test images, two equal accuracies may be chance.
    assert not equal_methods([make_pair({"student": [70.0], "kd": [70.0]})], NAMES)
    assert not equal_methods([make_pair({"student": ALONE})], NAMES)
    assert not equal_methods([make_pair({"student": {0: 1.0}, "kd": {1: 1.0}, "a": {}})], NAMES)


def test_a_spread_beyond_reason() -> None:
    wild = make_pair({"student": ALONE, "kd": [70.0, 60.0, 71.0]})
    doubt = only(wide_spread([wild], 10_000, (), NAMES))
    assert doubt.severity == "caution"
    assert "for KD (6.1 points)" in doubt.text
    pairs = [wild, make_pair({"student": ALONE}, "vgg13")]
    assert "for KD on resnet56 → resnet20 (6.1" in only(wide_spread(pairs, 10_000, (), NAMES)).text
    # A collapsed run has a message of its own, and few test images spread more.
    collapsed = wild.cell("kd").ids[1]
    assert not wide_spread([wild], 10_000, {collapsed}, NAMES)
    assert not wide_spread([wild], 100, (), NAMES)


def test_one_seed_or_too_few_for_a_difference() -> None:
    def doubts(seeds: int = 3, **accuracies: list[float]) -> list[Doubt]:
        return few_seeds([make_pair(accuracies)], list(accuracies), seeds)

    one = only(doubts(1, student=[70.0], kd=[75.0]))
    assert one.text.startswith("The study has one seed, so no difference")
    started = only(doubts(3, student=[70.0], kd=[75.0]))
    assert started.text.startswith("So far each method has at most one seed, so no difference")
    common = only(doubts(3, student=ALONE, kd=[75.0]))
    assert common.text.startswith("So far there is one common seed, so no difference")
    assert only(doubts(1, kd=[75.0], dkd=[76.0])).kind == "one-seed"  # without the student alone
    assert not doubts(1, kd=[75.0])  # nothing to compare
    # Differences of −1.5, 0.5 and 1.9: an interval of ± 4.26, by hand 4.303 · 1.7088/√3 ≈ 4.2.
    noisy = {"student": ALONE, "kd": [67.5, 70.0, 71.9]}
    few = only(doubts(**noisy))
    low, high = average_gains([make_pair(noisy)], ["kd"])[0].difference.interval()
    assert f"With 3 seeds, a gain below about {signed((high - low) / 2, 1)[1:]} points" in few.text
    assert "below about 4.2 points cannot be told from chance" in few.text
    # t(0.975; 13)·1.7088/√14 = 0.987 is the first below 1.
    assert few.text.endswith("About 14 seeds would be enough to detect a gain of 1 point.")
    assert not doubts(student=ALONE, kd=[69.0, 69.6, 70.1])  # no gain, but a narrow interval
    assert not doubts(student=ALONE, kd=[80.0, 85.0, 82.0])  # a wide one, but a larger gain
    assert not doubts(student=[], kd=[])
    wild = only(doubts(student=ALONE, kd=[40.0, 70.0, 99.0]))
    assert "seeds would" not in wild.text


# Simplifiers.


def test_collapsed_simplifiers_are_listed(findings: Findings) -> None:
    doubt = only(collapsed_simplifiers(findings.frames, NAMES))
    assert doubt.text.startswith("In 1 run the simplified teacher collapsed")
    assert "This run is included in every mean, but measures the cost" in doubt.text
    assert doubt.details == ("resnet56 → resnet20, SKD, seed 1: lost the labels",)
    since = findings.frames.runs.assign(collapse_epoch=7)
    (line,) = only(collapsed_simplifiers(replace(findings.frames, runs=since), NAMES)).details
    assert "seed 1, from epoch 7: lost" in line


def moved(
    findings: Findings, factor: Callable[[pd.DataFrame], pd.Series], **changes
) -> list[Doubt]:
    epochs = findings.frames.epochs
    frames = replace(findings.frames, epochs=epochs.assign(**{KL: epochs[KL] * factor(epochs)}))
    return unmoved_simplifiers(frames, findings.expansion.model_copy(update=changes), NAMES)


def test_skd_is_kd_only_where_the_study_has_skd(findings: Findings) -> None:
    def still(epochs: pd.DataFrame) -> float:
        return 1e-3  # of divergences of 0.02 and 0.9

    every = only(moved(findings, still))
    assert every.text == (
        "No simplifier has changed its teacher by the last epoch (KL divergence from the softened "
        "teacher below 0.001 nats), so no gain is an effect of the simplifier: here SKD is KD, and "
        "SKD + KD is KD at twice its weight."
    )
    without = moved(findings, still, methods=("student", "kd", "skd+kd"))
    assert only(without).text.endswith(
        "is an effect of the simplifier: here SKD + KD is KD at twice its weight."
    )
    assert not moved(findings, lambda epochs: 1.0)
    assert not moved(findings, lambda epochs: float("nan"))


def test_a_method_whose_simplifier_alone_is_unmoved_is_named(findings: Findings) -> None:
    doubt = only(moved(findings, lambda epochs: 1.0 - 0.999 * (epochs["method"] == "skd+kd")))
    assert doubt.text.startswith("The simplifier of SKD + KD has not changed its teacher")


def test_a_frozen_simplifier_is_not_meant_to_move(findings: Findings) -> None:
    def freeze(cell):
        part = cell.spec.method.simplifier
        if cell.method != "T-8" or part is None:
            return cell
        frozen = part.model_copy(update={"settings": {**part.settings, "trainable": False}})
        method = cell.spec.method.model_copy(update={"simplifier": frozen})
        return cell.model_copy(update={"spec": cell.spec.model_copy(update={"method": method})})

    def only_t8(epochs: pd.DataFrame) -> pd.Series:
        return 1.0 - 0.999 * (epochs["method"] == "T-8")

    assert only(moved(findings, only_t8)).text.startswith("The simplifier of T-8 has not")
    cells = tuple(freeze(cell) for cell in findings.expansion.cells)
    assert not moved(findings, only_t8, cells=cells)


# Where the runs come from.


def small_findings(folder: Path, changes: dict[tuple[str, int], dict]) -> Findings:
    """Return the findings of a pair whose records have these changes, by method and seed."""
    study: Expansion = make_study(
        recipe=Recipe(epochs=3, milestones=(2,)), pairs=(("resnet56", "resnet20"),)
    )
    store = Store(folder)
    for cell in study.cells:
        for seed in cell.runs:
            own = changes.get((cell.method, seed), {})
            record = make_record(cell, seed, 70.0 + seed, **own)
            store.run(record.id).write(record)
    card = make_card(study, "resnet56")
    store.teacher(card.id).write(card)
    return read_findings(study, folder)


def code(digest: str | None) -> dict:
    return {"code": {"skd/training/loop.py": digest} if digest else None}


CELLS = [(method, seed) for method in ("student", "kd", "dkd", "skd", "skd+kd", "T-8")
         for seed in range(3)]  # fmt: skip


def marks(findings: Findings) -> dict[str, list[tuple[str, str]]]:
    cells = findings.pairs[0].cells
    return {c.method: [(m.text, m.hint) for m in c.marks] for c in cells if c.marks}


def test_one_version_of_the_code_is_a_note_and_no_mark(tmp_path: Path) -> None:
    findings = small_findings(tmp_path / "today", {})
    assert not pooled_code(findings.frames, NAMES)
    other = small_findings(tmp_path / "other", dict.fromkeys(CELLS, code("e" * 16)))
    doubt = only(pooled_code(other.frames, NAMES))
    assert doubt.severity == "note"
    assert doubt.text == (
        "All 18 finished runs were trained by another version of the code (skd/training/loop.py), "
        "so the current code may give other numbers."
    )
    unknown = small_findings(tmp_path / "unknown", dict.fromkeys(CELLS, code(None)))
    assert only(pooled_code(unknown.frames, NAMES)).kind == "unknown-code"
    assert marks(findings) == marks(other) == marks(unknown) == {}
    teachers = findings.frames.teachers.assign(other_code="skd/models/resnet.py")
    doubt = only(pooled_code(replace(findings.frames, teachers=teachers), NAMES))
    assert doubt.text.startswith("Teacher resnet56 was trained by another version of the code (skd")


def test_pooled_versions_of_the_code_are_a_caution_and_marked(tmp_path: Path) -> None:
    changes = {("kd", seed): code("e" * 16) for seed in range(3)}
    changes |= {("dkd", 1): code(None), ("skd", 0): code("e" * 16)}
    findings = small_findings(tmp_path, changes)
    doubt = only(pooled_code(findings.frames, NAMES))
    assert (doubt.kind, doubt.severity) == ("pooled-code", "caution")
    assert doubt.text == (
        "Runs of different versions of the code are pooled: 13 by the current code, 4 by another "
        "version of the code and 1 by an unknown version (changed: skd/training/loop.py). "
        "Differences between methods may come from the code. In 2 cells even the seeds of one "
        "method differ in it."
    )
    by_other = "3 of 3 runs by another version of the code (skd/training/loop.py)"
    assert marks(findings) == {
        "kd": [("other code", by_other)],
        "dkd": [("mixed code", "1 of 3 runs by an unknown version of the code")],
        "skd": [("mixed code", by_other.replace("3 of 3", "1 of 3"))],
    }
    assert TODAYS != "e" * 16


def test_pooled_machines_name_what_differs(tmp_path: Path) -> None:
    gpu = {
        "environment": {"torch": "2.11.0", "gpu": "H200"},
        "execution": {"device": "cuda", "precision": "bfloat16"},
    }
    cpu = {key: {"execution": {"device": "cpu", "precision": "float32"}} for key in CELLS}
    findings = small_findings(tmp_path / "b", cpu | {("kd", 0): gpu})
    doubt = only(pooled_machines(findings.frames))
    assert doubt.severity == "caution"
    assert "cpu (17 runs) and H200 (1 run); torch 2.15.0 (17 runs) and 2.11.0 (1 run)" in doubt.text
    assert "; precision float32 (17 runs) and bfloat16 (1 run). Their" in doubt.text
    assert not pooled_machines(small_findings(tmp_path / "a", cpu).frames)


def test_pairs_with_other_teachers_are_named() -> None:
    mixed = replace(make_pair({"student": ALONE}), num_teachers=2)
    assert "runs of resnet56 → resnet20 had teachers" in only(pooled_teachers([mixed], NAMES)).text
    assert not pooled_teachers([make_pair({"student": ALONE})], NAMES)


# In the report.


def test_fatal_doubts_come_before_the_answer_and_notes_last(findings: Findings) -> None:
    doubts = tuple(
        Doubt("made-up", severity, severity, ("one", "two"))
        for severity in ("fatal", "caution", "note")
    )
    text = replace(findings, doubts=doubts).headline
    answer = findings.answer
    assert text[:3] == ("fatal one; two.", answer.lead, *answer.points[:1])
    assert text.index("caution one; two.") == 3
    assert text[-1] == "note one; two."
