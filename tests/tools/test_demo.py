"""The end of `make demo`: progress, exit status, and what is shown of a failure."""

import sys
from pathlib import Path

import pytest

from skd.store.records import ProgressNote
from skd.store.store import Store
from tests.builders.reported_study import filled
from tools.demo import TAIL, Trained, entries_of, failure_lines, run_with_progress, trained

FAILED_RULE = """\
[Sat Nov 28 08:48:36 2026]
Error in rule train:
    message: None
    output: results/demo/cells/a.json
    shell:
        exec python
Logfile results/demo/logs/a.log:
================================================================================
epoch 1
skd: the loss is not finite at step 3
================================================================================
[Sat Nov 28 08:48:40 2026]
Finished jobid: 8 (Rule: train)
"""


def test_a_failed_rule_is_shown_with_the_last_line_of_its_log() -> None:
    lines = failure_lines(FAILED_RULE + "report written\n" * 40)
    assert lines == ["train: skd: the loss is not finite at step 3; results/demo/logs/a.log"]


def test_a_failed_rule_with_an_empty_log_is_shown_before_the_next_one() -> None:
    ruler = "=" * 80
    killed = f"Error in rule train:\nLogfile results/demo/logs/a.log:\n{ruler}\n{ruler}\n"
    later = f"Error in rule report:\nLogfile results/demo/logs/b.log:\n{ruler}\nBoom\n{ruler}\n"
    assert failure_lines(killed + later) == [
        "train: its log is empty; results/demo/logs/a.log",
        "report: Boom; results/demo/logs/b.log",
    ]


def test_without_a_failed_rule_the_end_of_the_log_is_shown() -> None:
    log = "\n".join([*map(str, range(40)), "WorkflowError: no such profile"])
    lines = failure_lines(log)
    assert len(lines) == TAIL
    assert lines[-1] == "WorkflowError: no such profile"


def test_output_goes_to_the_file_and_the_status_is_the_commands(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "snakemake.log"
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    status = run_with_progress([sys.executable, "-c", script], log, lambda: Trained(1, 2, 0.5))
    assert status == 3
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert capfd.readouterr().out == ""


def test_progress_counts_finished_trainings_and_epochs_of_running_ones(tmp_path: Path) -> None:
    study, store = filled(tmp_path), Store(tmp_path)
    entries = entries_of(study, store)
    before = trained(entries)
    finished = sum(entry.record_path.is_file() for entry, is_teacher in entries if not is_teacher)
    assert before.total == len(entries)
    assert before.done == finished + 1  # one teacher has a card
    assert str(before) == f"{before.done} of {before.total} trainings finished"
    running = next(entry for entry, teacher in entries if not teacher and not entry.folder.exists())
    running.write(ProgressNote(epoch=60, epochs=240, images_per_second=1, seconds_left=1, at=0))
    after = trained(entries)
    assert after.done == before.done
    assert after.share == pytest.approx(before.share + 0.25 / before.total)
