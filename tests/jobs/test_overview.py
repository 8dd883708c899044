"""`skd status`: progress, the time of the end, and the jobs of a study."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from skd.common.lease import hold_lease
from skd.jobs.overview import (
    STATES,
    OverviewRow,
    StudyOverview,
    projected_seconds,
    study_overview,
)
from skd.jobs.overview_text import render_overview
from skd.jobs.rule_outputs import entries_by_rule_output
from skd.jobs.workers import write_failure_note
from skd.planning.survey import survey_study
from skd.store.records import ProgressNote
from skd.store.store import Store
from tests.builders.planned_studies import GPU, study, timings

# The printed overview.


def test_the_overview_has_progress_and_the_end(tmp_path: Path) -> None:
    expansion, store = study(), Store(tmp_path)
    cell = expansion.cell("resnet56--resnet20", "kd")
    running, failed = store.run(cell.runs[0]), store.run(cell.runs[1])
    running.write(
        ProgressNote(
            epoch=11, epochs=240, images_per_second=1234, seconds_left=3600, at=time.time()
        )
    )
    write_failure_note(failed, "it broke", "Killed")
    with hold_lease(running.folder, wait=False):
        overview = study_overview(expansion, store, tmp_path)
    counts = next(row.counts for row in overview.rows if row.key == cell.key)
    assert counts == {"running": 1, "failed": 1, "missing": 1}
    assert any("epoch 12/240, 1234 images/s, 1:00:00 left" in line for line in overview.lines)
    assert any(f"({failed.id}) failed: it broke; " in line for line in overview.lines)
    remaining = survey_study(expansion, store, timings(), GPU, 1)
    one = projected_seconds(overview, remaining)
    assert one > 3600
    overview.running_jobs = 4
    assert projected_seconds(overview, remaining) < one
    overview.running_jobs = 0
    assert projected_seconds(overview, remaining) is None


def printed(overview: StudyOverview, seconds: float | None = None) -> list[str]:
    """Return the lines of an overview on a terminal of 80 columns."""
    text = io.StringIO()
    Console(file=text, width=80).print(render_overview(overview, seconds))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_80_columns_hold_names_states_and_accuracies() -> None:
    long_pair = "resnet110x2--shufflenet_v2_imagenet_x2"
    every_state = dict.fromkeys(STATES, 2)
    lines = printed(
        StudyOverview(
            "study: Title",
            [
                OverviewRow("teacher resnet34-imagenet", {"done": 1}, (73.31,)),
                OverviewRow("student", {"done": 3}, (68.87, 69.0, 69.13), "mobilenet_v1-imagenet"),
                OverviewRow("kd", {"done": 1, "running": 2}, (70.5,), long_pair),
                OverviewRow("skd+reviewkd", every_state, (71.0, 72.0), long_pair),
            ],
        )
    )
    words = [line.split() for line in lines]
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert [long_pair] in words
    assert ["teacher", "resnet34-imagenet", "1/1", "73.31"] in words
    assert ["kd", "1/3", "2", "running", "70.50"] in words
    (every,) = (line for line in lines if line.lstrip().startswith("skd+reviewkd"))
    assert every.endswith("71.50 ± 0.71")
    assert "2/14" in every
    states = " ".join(word for line in words[words.index(every.split()) :] for word in line)
    assert all(word in states for state, word in STATES.items() if state != "done")
    assert any(line.strip().startswith("all runs") and "6/20" in line for line in lines)


def test_a_pair_is_named_once_and_a_single_cell_in_its_row() -> None:
    cells = [("a--b", "kd"), ("b", "student"), ("a--b", "skd")]
    rows = [OverviewRow(method, {"done": 1}, (50.0,), pair) for pair, method in cells]
    words = [line.split() for line in printed(StudyOverview("s: t", rows))]
    start = words.index(["a--b"])
    assert words[start + 1 : start + 4] == [
        ["kd", "1/1", "50.00"],
        ["skd", "1/1", "50.00"],
        ["b/student", "1/1", "50.00"],
    ]
    assert not any("not" in line for line in words)


@pytest.mark.parametrize(
    ("devices", "text"), [(1, "to the end on 1 device:"), (2, "to the end on 2 devices:")]
)
def test_the_end_is_the_last_line(devices: int, text: str) -> None:
    overview = StudyOverview("s: t", lines=["a line"], running_jobs=devices)
    *_, line, end = printed(overview, 3600.0)
    assert line == "a line"
    assert end.startswith("about 1:00:00")
    assert text in end


def test_each_job_is_known_by_its_output(tmp_path: Path) -> None:
    expansion = study()
    outputs = entries_by_rule_output(expansion, Store(tmp_path), tmp_path / "results")
    teacher = expansion.teachers[0]
    assert f"results/{expansion.study}/teachers/{teacher.name}-{teacher.id}.json" in outputs
    labels = [label for entries in outputs.values() for label in entries]
    assert len(labels) == 1 + sum(len(cell.runs) for cell in expansion.cells)
