"""`skd status`: progress, the time of the end, and the jobs of a study."""

import time
from pathlib import Path

from skd.common.lease import hold_lease
from skd.jobs.overview import projected_seconds, study_overview
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
    row = next(counts for key, counts, _ in overview.rows if key == cell.key)
    assert row == {"running": 1, "failed": 1, "missing": 1}
    assert any("epoch 12/240, 1234 images/s, 1:00:00 left" in line for line in overview.lines)
    assert any(f"({failed.id}) failed: it broke; " in line for line in overview.lines)
    remaining = survey_study(expansion, store, timings(), GPU, 1)
    one = projected_seconds(overview, remaining)
    assert one > 3600
    overview.running_jobs = 4
    assert projected_seconds(overview, remaining) < one
    overview.running_jobs = 0
    assert projected_seconds(overview, remaining) is None


def test_each_job_is_known_by_its_output(tmp_path: Path) -> None:
    expansion = study()
    outputs = entries_by_rule_output(expansion, Store(tmp_path), tmp_path / "results")
    teacher = expansion.teachers[0]
    assert f"results/{expansion.study}/teachers/{teacher.name}-{teacher.id}.json" in outputs
    labels = [label for entries in outputs.values() for label in entries]
    assert len(labels) == 1 + sum(len(cell.runs) for cell in expansion.cells)
