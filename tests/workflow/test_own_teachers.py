"""A job whose methods have different teachers waits for all of them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.builders import tiny
from tests.workflow.test_workflow import snakemake, write_sheet

METHODS = [
    "kd",
    {"name": "sftn+kd", "like": "kd", "teacher": {"method": "sftn"}},
    {"name": "soteacher+kd", "like": "kd", "teacher": {"method": "soteacher"}},
]


def test_a_job_waits_for_the_teachers_of_all_of_its_methods(tmp_path: Path) -> None:
    teachers = {"teacher": {"network": "resnet14", "train": {"seed": 7}}}
    write_sheet(tmp_path, {**tiny.SHEET, "methods": METHODS, "teachers": teachers})
    done = snakemake(tmp_path, "all", "--config", "study=tiny", "cells_per_job=3", "--dry-run")
    assert done.returncode == 0, done.stderr
    (block,) = re.findall(r"^rule train:\n((?: +\S.*\n)+)", done.stdout, re.MULTILINE)
    inputs = re.findall(
        r"results/tiny/teachers/(\S+?)-[0-9a-f]{16}\.json", block.split("output")[0]
    )
    assert inputs == ["teacher", "teacher-sftn-resnet8", "teacher-soteacher"]
    assert re.search(r"^teacher +3$", done.stdout, re.MULTILINE)
