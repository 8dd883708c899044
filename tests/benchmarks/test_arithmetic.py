"""The arithmetic of `skd bench`, against values worked out by hand; its rows, tables and JSON."""

import itertools
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks import arithmetic, tables
from benchmarks.case_runner import SideMeasurement
from benchmarks.cases import BenchmarkCase, SideOptions, select_cases
from benchmarks.result_rows import benchmark_rows, views_cost
from benchmarks.results import (
    BenchError,
    BenchmarkResult,
    BenchmarkRow,
    HardwarePeak,
    ViewsCost,
    read_benchmark,
    write_benchmark,
)
from benchmarks.variants import VARIANTS
from skd.common.errors import UnknownNameError
from skd.common.project import ROOT
from skd.study.spec import DatasetSpec
from tests.builders import tiny


@pytest.fixture(scope="module")
def cases() -> list[BenchmarkCase]:
    return select_cases(tiny.study())


def case_of(cases: list[BenchmarkCase], method: str) -> BenchmarkCase:
    return next(case for case in cases if case.method == method)


# The arithmetic.


def test_sides_take_turns_forward_and_backward() -> None:
    assert arithmetic.alternation(["a", "b"], 3) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert arithmetic.alternation(["a", "b", "c"], 2) == [("a", "b", "c"), ("c", "b", "a")]
    with pytest.raises(ValueError, match="1 or more"):
        arithmetic.alternation(["a"], 0)


def test_rates_epochs_and_shares() -> None:
    assert arithmetic.images_per_second(64, 1, 0.25) == 256
    assert arithmetic.images_per_second(64, 4, 0.25) == 1024
    assert arithmetic.seconds_per_epoch(782, 0.1, 21.8) == pytest.approx(100)
    assert arithmetic.seconds_per_epoch(782, 0.1, 21.8, lanes=4) == pytest.approx(25)
    assert arithmetic.evaluation_share(782, 0.1, 21.8) == pytest.approx(0.218)
    # 64 images: three passes of the student and trained modules, one of the teacher.
    assert arithmetic.step_multiply_adds(10, 1, 100, 64) == 64 * (33 + 100)
    assert arithmetic.share_of_peak(10**9, 0.5, 4e9) == 0.5


def test_the_ratio_is_paired_by_rounds() -> None:
    one = arithmetic.paired_ratio([2.0], [0.5])
    assert (one.value, one.low, one.high) == (4, None, None)
    # Twice as fast in every round, however the rounds differ: nothing is uncertain.
    rounds = [1.0, 4.0, 9.0, 2.0, 3.0, 8.0]
    same = arithmetic.paired_ratio(rounds, [seconds / 2 for seconds in rounds])
    assert (same.value, same.low, same.high) == (2, 2, 2)
    # One disturbed round of six widens the interval and moves the median little.
    six = arithmetic.paired_ratio([2.0, 2.2, 2.4, 2.6, 2.8, 30.0], [1.0] * 6)
    assert (six.value, six.low, six.high) == pytest.approx((2.5, 2.0, 30.0))
    assert arithmetic.paired_ratio([1.0] * 5, [1.0] * 5).low is None  # 94 % at most
    # Of nine, one at each end is excluded: 2 · (1 + 9) / 2⁹ = 3.9 % are outside.
    nine = arithmetic.paired_ratio([1.0, 2, 3, 4, 5, 6, 7, 8, 9], [1.0] * 9)
    assert (nine.value, nine.low, nine.high) == (5, 2, 8)
    for reference, own in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="paired"):
            arithmetic.paired_ratio(reference, own)


def test_when_the_views_have_paid() -> None:
    assert arithmetic.break_even_runs(600, seconds_saved_per_epoch=5, epochs=240) == 0.5
    assert arithmetic.break_even_runs(600, seconds_saved_per_epoch=0, epochs=240) is None
    assert arithmetic.break_even_runs(600, seconds_saved_per_epoch=-1, epochs=240) is None


# The cases.


def test_cases_are_the_studys_cells(cases: list[BenchmarkCase]) -> None:
    assert [case.key for case in cases] == [
        "resnet8/student",
        f"{tiny.PAIR}/kd",
        f"{tiny.PAIR}/skd",
        f"{tiny.PAIR}/skd+kd",
    ]
    alone, taught = cases[:2]
    assert (alone.teacher, alone.teacher_id, alone.teacher_facts) == (None, None, None)
    assert taught.teacher == "teacher"
    assert taught.teacher_facts == taught.student_facts
    assert (taught.batch_size, taught.steps_per_epoch) == (64, 2)  # 80 images
    assert all(BenchmarkCase.model_validate_json(case.model_dump_json()) == case for case in cases)
    chosen = select_cases(tiny.study(), methods=["skd", "kd"])
    assert [case.method for case in chosen] == ["kd", "skd"]


def test_wrong_names_are_reported_with_the_allowed_ones() -> None:
    study = tiny.study()
    with pytest.raises(UnknownNameError, match=f"unknown pair 'a--b'.*allowed: {tiny.PAIR}"):
        select_cases(study, pairs=["a--b"])
    with pytest.raises(UnknownNameError, match=r"'sdk'.*did you mean 'skd'.*student, kd, skd"):
        select_cases(study, methods=["sdk"])


# The rows.


PLAIN_ROUNDS = [0.4, 0.8, 0.6]


def measured(
    side: str, rounds: list[float], plain: list[float] = PLAIN_ROUNDS, **fields: object
) -> SideMeasurement:
    return SideMeasurement(
        side,
        fields,
        rounds,
        evaluations=[3.0, 1.0, 2.0],
        peak_memory_bytes=2**20,
        variant=fields.pop("variant", None),
        plain_rounds=plain,
    )


def test_rows_hold_what_was_measured(cases: list[BenchmarkCase]) -> None:
    case = case_of(cases, "kd")
    peak = HardwarePeak(precision="float32", multiply_adds_per_second=1e9, measured_by="hand")
    broken = SideMeasurement("mdistiller", failure="no such thing", unfit=True)
    sides = [
        measured("skd", [0.2, 0.4, 0.3], teacher="views", lanes=4),
        measured("skd-live", [0.4, 0.4, 0.4], teacher="live"),
        measured("plain", PLAIN_ROUNDS, teacher="live"),
        broken,
    ]
    ours, live, plain, none = benchmark_rows(case, sides, {"float32": peak})
    assert ours.steps_per_second == pytest.approx(4 / 0.3)
    assert ours.plain_rounds == plain.rounds == tuple(PLAIN_ROUNDS)
    assert (ours.lanes, ours.seconds_per_step, ours.evaluation_seconds) == (4, 0.3, 2.0)
    assert ours.images_per_second == pytest.approx(4 * 64 / 0.3)
    assert ours.seconds_per_epoch == pytest.approx((2 * 0.3 + 2) / 4)
    assert ours.speed_up.value == pytest.approx(8)  # half the time, four runs
    assert ours.speed_up.low is None  # three rounds
    assert plain.speed_up.value == 1
    student = case.student_facts.multiply_adds
    assert ours.multiply_adds == 4 * 64 * 3 * student  # the teacher does not run
    assert live.multiply_adds == plain.multiply_adds == 64 * 4 * student  # teacher = student
    assert live.share_of_peak == pytest.approx(64 * 4 * student / 0.4 / 1e9)
    assert (none.failure, none.unfit, none.rounds) == ("no such thing", True, ())
    assert none.seconds_per_step is none.speed_up is None
    assert none.steps_per_second is None
    sides = [measured("skd", [0.2, 0.4], plain) for plain in ([], [0.4])]  # it failed in between
    without = benchmark_rows(case, sides, {})
    assert [row.speed_up for row in without] == [row.share_of_peak for row in without] == [None] * 2


def test_rows_tell_what_time_left_out(cases: list[BenchmarkCase]) -> None:
    unmeasured = SideMeasurement("skd", variant="eager", lanes=4, time_is_up=True)
    unevaluated = SideMeasurement(
        "skd", {"lanes": 2}, [0.5, 0.7], variant="eager", lanes=2, time_is_up=True
    )
    rows = benchmark_rows(case_of(cases, "kd"), [unmeasured, unevaluated], {})
    first, second = rows
    assert (first.variant, first.lanes, first.skipped, first.unfit) == ("eager", 4, True, False)
    assert (first.failure, first.rounds) == ("not measured: time is up", ())
    assert second.failure is second.seconds_per_epoch is second.evaluation_share is None
    assert (second.seconds_per_step, second.rounds) == (0.6, (0.5, 0.7))
    assert comparison(rows).failures == []
    assert "not measured: time is up" in tables.row_line(first)
    assert "an epoch" not in tables.row_line(second)


def test_what_the_views_cost_is_set_against_what_they_save(cases: list[BenchmarkCase]) -> None:
    case = case_of(cases, "kd")
    sides = [
        measured("skd", [0.2], teacher="views"),
        measured("skd-live", [0.5], teacher="live"),
    ]
    rows = benchmark_rows(case, sides, {})
    found = {"views": 25, "images": 80, "seconds": 9.0, "measured_share": 0.1, "bytes": 4000}
    built = views_cost("teacher", found, rows, epochs=3)
    assert built.extrapolated
    assert built.pays_after_runs == {case.key: pytest.approx(9 / (2 * 0.3 * 3))}
    eager = measured("skd", [0.1], teacher="views", variant="eager")  # no matching side is live
    more = benchmark_rows(case, [*sides, eager], {})
    assert views_cost("teacher", found, more, epochs=3) == built
    assert views_cost("another", found, rows, epochs=3).pays_after_runs == {}
    failed = views_cost("teacher", {"failure": "no room"}, rows, epochs=3)
    assert (failed.failure, failed.pays_after_runs) == ("no room", {})


# The JSON and the tables.


def comparison(rows: list[BenchmarkRow], **changes: object) -> BenchmarkResult:
    return BenchmarkResult(
        made_at="2026-01-02T03:04:05+00:00",
        environment={"torch": "2.15.0", "gpu": None},
        study="tiny",
        dataset=DatasetSpec(name="digits"),
        device="cpu",
        device_name="a CPU",
        threads=2,
        round_steps=10,
        epochs=3,
        rows=rows,
        **changes,
    )


def test_a_comparison_survives_json(cases: list[BenchmarkCase], tmp_path: Path) -> None:
    case, path = case_of(cases, "kd"), tmp_path / "bench" / "cpu.json"
    rows = benchmark_rows(
        case, [measured("plain", [0.4, 0.5], workers=2), SideMeasurement("skd", failure="x")], {}
    )
    views = ViewsCost(teacher="teacher", failure="no room")
    compared = comparison(rows, teacher_views=(views,))
    write_benchmark(compared, path)
    assert read_benchmark(path) == compared
    assert compared.schema_version == json.loads(path.read_text())["schema_version"] == 1
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    for damaged in (path, tmp_path / "none.json"):
        with pytest.raises(BenchError, match=damaged.name):
            read_benchmark(damaged)
    with pytest.raises(ValidationError, match="unknown key 'wrong'"):
        BenchmarkRow.model_validate({**rows[0].model_dump(), "wrong": 1})


def test_failures_are_what_went_wrong_not_what_is_not_there(cases: list[BenchmarkCase]) -> None:
    sides = [
        measured("plain", [0.4]),
        SideMeasurement("skd", failure="broken"),
        SideMeasurement("mdistiller", failure="no such method", unfit=True),
    ]
    rows = benchmark_rows(case_of(cases, "kd"), sides, {})
    views = ViewsCost(teacher="teacher", failure="no room")
    assert comparison(rows).failures == [f"{tiny.PAIR}/kd, skd"]
    assert comparison([], teacher_views=(views,)).failures == ["views of teacher"]


def test_tables_contain_numbers_and_reasons(cases: list[BenchmarkCase]) -> None:
    sides = [
        measured("skd", [0.2, 0.25] * 3, [0.4, 0.5] * 3, teacher="views", lanes=2),
        measured("plain", [0.4, 0.5] * 3, teacher="live", workers=3, teacher_weights="random"),
        SideMeasurement("mdistiller", failure="the disk is full"),
    ]
    peak = HardwarePeak(precision="float32", multiply_adds_per_second=5e10, measured_by="by hand")
    rows = benchmark_rows(case_of(cases, "kd"), sides, {"float32": peak})
    views = ViewsCost(
        teacher="teacher",
        views=25,
        images=80,
        seconds=9.0,
        measured_share=0.1,
        bytes=2**21,
        pays_after_runs={"a/kd": 0.5, "a/dkd": None},
    )
    compared = comparison(rows, peaks={"float32": peak}, teacher_views=(views,))
    lines = [
        *tables.rows_lines(compared.rows, long=True),
        *tables.views_lines(compared.teacher_views),
    ]
    lines += [*tables.comparison_notes(compared), *map(tables.row_line, compared.rows)]
    text = " ".join(" ".join(lines).split())  # lines may break anywhere
    for expected in (
        "4.00 [4.00, 4.00] times",
        "the disk is full",
        "workers 3",
        "random weights",
        "100 GFLOP/s, measured here",
        "about 9 s",
        "number of runs after which storing them saves time: a/kd: 0.5; a/dkd: never",
        "2 threads a side",
    ):
        assert expected in text, expected


def test_tables_fit_a_terminal_of_80_columns(cases: list[BenchmarkCase]) -> None:
    names = ["skd", "skd-live", "plain"]
    reason = "no table was measured on this GPU: skd tune-kernels " * 3
    sides = [
        measured(
            "skd",
            [seconds] * 6,
            [12 * seconds] * 6,
            teacher="views",
            lanes=lanes,
            variant=variant,
            recording="not recorded: an operation that has a very long name " * 2,
        )
        for variant, seconds in zip(VARIANTS, itertools.cycle([0.00123, 0.123, 12.3, 1.0]))
        for lanes in (1, 16)
    ]
    sides += [measured(name, [0.5], [0.5]) for name in names[1:]]
    sides += [
        SideMeasurement("skd", variant="kernels-bfloat16", lanes=8, failure=reason, unfit=True),
        SideMeasurement("skd", variant="kernels-bfloat16", lanes=16, time_is_up=True),
        SideMeasurement("mdistiller", failure="RuntimeError: it broke"),
    ]
    for side in sides:
        side.peak_memory_bytes = 70 * 2**30
    rows = [row for case in cases[:2] for row in benchmark_rows(case, sides, {})]
    compared = comparison(rows, teacher_views=(ViewsCost(teacher="a", failure="no " * 60),))
    for long in (False, True):
        lines = [*tables.rows_lines(rows, long), *tables.views_lines(compared.teacher_views)]
        lines += tables.comparison_notes(compared)
        assert max(map(len, lines)) <= 80
        for variant in VARIANTS:
            words = [line.split() for line in lines if line.startswith(f"skd {variant} ")]
            assert len(words) >= 2 * len(cases[:2])  # unbroken, with each number of lanes
            assert words[0][2] == "1"
        text = "\n".join(lines)
        for expected in (
            "not available",
            "FAILED",
            "not measured: time is up",
            "12.0 [12.0, 12.0]",
        ):
            assert expected in text, expected
        assert ("very long name" in text) == long


def test_the_reference_comparisons_can_still_be_read() -> None:
    paths = sorted((ROOT / "results" / "reference" / "bench").glob("*.json"))
    benchmarks = {path.stem: read_benchmark(path) for path in paths}
    variants = {
        name: {row.variant for row in benchmark.rows} for name, benchmark in benchmarks.items()
    }
    later = variants.pop("cpu-kd-2026-11")  # the only one with variants
    assert later == {None, "recorded"}
    assert len(variants) >= 5
    assert all(known == {None} for known in variants.values())
    assert all([*tables.rows_lines(benchmark.rows)] for benchmark in benchmarks.values())


def test_options_go_to_other_processes_as_json(tmp_path: Path) -> None:
    options = SideOptions(device="cpu", threads=2, workers=0, results=tmp_path, mdistiller=tmp_path)
    assert SideOptions.model_validate_json(options.model_dump_json()) == options
    with pytest.raises(ValidationError, match="threads"):
        SideOptions(device="cpu", threads=0, results=tmp_path)
