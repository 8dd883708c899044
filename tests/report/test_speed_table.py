"""The report's table of `skd bench`'s measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results import BenchmarkResult, BenchmarkRow, SpeedUp, ViewsCost, write_benchmark
from report.findings import read_findings
from report.formats import mebibytes
from report.tables.markdown import table_markdown
from report.tables.speed import read_benchmarks, speed_table
from skd.study.spec import DatasetSpec
from tests.builders import reported_study

STUDY = reported_study.make_study()


def row(side: str, **changes: Any) -> BenchmarkRow:
    values = {
        "pair": reported_study.FIRST,
        "method": "kd",
        "teacher": "resnet56",
        "student": "resnet20",
        "side": side,
        "batch_size": 64,
        "steps_per_epoch": 782,
        "seconds_per_step": 0.25,
        "images_per_second": 256.0,
        "seconds_per_epoch": 200.0,
        "evaluation_share": 0.04,
        "peak_memory_bytes": 2**30,
        "share_of_peak": 0.5,
    }
    return BenchmarkRow(**{**values, **changes})


def comparison(*rows: BenchmarkRow, made_at: str = "2026-01-01T00:00:00+00:00", **changes: Any):
    values = {
        "made_at": made_at,
        "environment": {"torch": "2.15.0"},
        "study": "cifar100",
        "dataset": DatasetSpec(name="cifar100"),
        "device": "cpu",
        "device_name": "AMD EPYC",
        "threads": 2,
        "round_steps": 10,
        "epochs": 240,
        "rows": rows,
        "teacher_views": (
            ViewsCost(teacher="resnet56", pays_after_runs={f"{reported_study.FIRST}/kd": 0.71}),
        ),
    }
    return BenchmarkResult(**{**values, **changes})


def test_each_side_has_its_row_and_the_later_measurement_counts() -> None:
    faster = SpeedUp(value=2.5, low=2.4, high=2.6)
    first = comparison(row("skd", seconds_per_step=9.0), row("plain"))
    later = comparison(
        row("skd", speed_up=faster),
        row("plain", method="skd"),
        row("skd", method="dkd", seconds_per_step=None, failure="it broke"),
        row("skd", pair="another--pair"),
        made_at="2026-01-02T00:00:00+00:00",
    )
    table = speed_table([first, later], STUDY)
    by_side = {(r[1].text, r[2].text, r[3].text): r for r in table.rows}
    pair = reported_study.FIRST.replace("--", " → ")
    assert [*by_side] == [
        (pair, "kd", "ours"), (pair, "kd", "plain loop"), (pair, "skd", "plain loop"),
    ]  # fmt: skip
    ours = [entry.text for entry in by_side[pair, "kd", "ours"]]
    assert ours[:1] + ours[4:] == [
        "AMD EPYC, 2 threads", "1", "250.0", "256", "200.0", "4.0", mebibytes(2**30), "50.0",
        "2.50x", "0.71",
    ]  # fmt: skip
    assert by_side[pair, "kd", "ours"][11].detail == "2.40 to 2.60"
    plain = [entry.text for entry in by_side[pair, "kd", "plain loop"]]
    assert plain[11:] == ["", ""]
    assert "torch 2.15.0" in table.caption


def test_variants_and_lanes_have_rows_of_their_own() -> None:
    older = comparison(row("skd", seconds_per_step=9.0), row("skd", lanes=4))
    later = comparison(
        row("skd", variant="recorded"),
        row("skd", variant="kernels-bfloat16"),
        row("skd", variant="kernels-bfloat16", lanes=4),
        row("skd", variant="eager", seconds_per_step=None, failure="x", skipped=True),
        row("skd-live", variant="recorded"),
        row("plain", seconds_per_epoch=None, evaluation_share=None),
        made_at="2026-01-02T00:00:00+00:00",
    )
    table = speed_table([older, later], STUDY)
    assert [(r[3].text, r[4].text, r[5].text) for r in table.rows] == [
        ("ours, recorded", "1", "250.0"),  # older files had only this variant
        ("ours", "4", "250.0"),
        ("ours, kernels-bfloat16", "1", "250.0"),
        ("ours, kernels-bfloat16", "4", "250.0"),
        ("ours, live teacher, recorded", "1", "250.0"),
        ("plain loop", "1", "250.0"),
    ]
    assert [r[12].text for r in table.rows] == ["0.71", *[""] * 5]  # of the first of ours
    assert [table.rows[-1][place].text for place in (7, 8)] == ["", ""]


def test_it_is_in_the_report_of_the_same_data_set(tmp_path: Path) -> None:
    study = reported_study.filled(tmp_path)
    assert "speed" not in read_findings(study, tmp_path).tables
    write_benchmark(comparison(row("skd")), tmp_path / "bench" / "cpu.json")
    other = comparison(row("plain"), dataset=DatasetSpec(name="digits"))
    write_benchmark(other, tmp_path / "bench" / "other.json")
    (tmp_path / "bench" / "torn.json").write_text("{")
    findings = read_findings(study, tmp_path)
    assert [r[3].text for r in findings.tables["speed"].rows] == ["ours"]
    assert "250.0" in table_markdown(findings.tables["speed"])
    (problem,) = [text for text in findings.problems if "torn.json" in text]
    assert "torn.json is damaged" in problem
    assert len(read_benchmarks(tmp_path, study)[0]) == 1
