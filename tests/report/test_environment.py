"""Where and how the runs were executed, in words that readers know."""

from pathlib import Path

from report.frames.study_frames import build_frames
from report.output.environment import distinct_record_values
from skd.store.store import Store
from tests.builders.reported_study import FIRST, make_record, make_study


def test_values_have_readable_labels_and_what_no_run_has_is_left_out(tmp_path: Path) -> None:
    study = make_study()
    cell = study.cell(FIRST, "kd")
    executions = (
        {
            "device": "cpu",
            "teacher": "float16",
            "sharing": 1,
            "recording": "not recorded",
            "list": [1, 2],
        },
        {"device": "cpu", "teacher": "live", "sharing": 1, "kernels": None},
        {"device": "cpu", "teacher": None, "sharing": 1, "kernels": None, "new": {"key_b": True}},
    )
    for seed, execution in enumerate(executions):
        environment = {"git_clean": seed == 0, "gpu": None}
        record = make_record(cell, seed, 70.0, environment=environment, execution=execution)
        Store(tmp_path).run(record.id).write(record)
    frames = build_frames(study, Store(tmp_path))
    assert dict(distinct_record_values(frames, "environment")) == {
        "Working tree": [("with changes", 2), ("as committed", 1)]
    }
    assert dict(distinct_record_values(frames, "execution")) == {
        "Device": [("cpu", 3)],
        "Teacher's outputs": [
            ("computed at each step", 1), ("no teacher", 1), ("stored as float16", 1)
        ],
        "Runs sharing the device": [("1", 3)],
        "List": [("1, 2", 1)],
        "New.key b": [("yes", 1)],
    }  # fmt: skip
