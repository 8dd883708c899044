"""The jobs of a study."""

import pytest

from skd.planning.job_graph import REPORT_JOB, STARTUP_SECONDS, shared_seconds, study_jobs
from tests.builders.planned_studies import estimate, study

PAIRS = (("resnet56", "resnet20"), ("vgg13", "resnet20"), ("vgg13", "MobileNetV2"))
METHODS = ("student", "kd", "crd", "skd", "at")
STUDY = study(PAIRS, METHODS)
KEYS = [cell.key for cell in STUDY.cells]
PAIR_OF = {cell.key: cell.pair for cell in STUDY.cells}


def test_the_graph() -> None:
    seconds = dict.fromkeys(KEYS, 10.0)
    names = dict(PAIR_OF)
    jobs = study_jobs(STUDY, {"resnet56": 100.0, "vgg13": 200.0}, seconds, names)
    by_name = {job.name: job for job in jobs}
    assert by_name["teacher vgg13"].seconds == 200 + STARTUP_SECONDS
    assert by_name["vgg13--MobileNetV2"].needs == ("teacher vgg13",)
    assert by_name["vgg13--MobileNetV2"].seconds == 4 * 10 + STARTUP_SECONDS
    assert by_name["resnet20"].needs == ()
    assert set(by_name[REPORT_JOB].needs) == set(by_name) - {REPORT_JOB}
    done: set[str] = set()
    for job in jobs:
        assert set(job.needs) <= done
        done.add(job.name)


def test_finished_cells_are_not_jobs() -> None:
    names = dict(PAIR_OF)
    jobs = study_jobs(STUDY, {}, {"resnet56--resnet20/crd": 5.0}, names)
    assert [(job.name, job.needs, job.parts) for job in jobs] == [
        ("resnet56--resnet20", (), ("resnet56--resnet20/crd",)),
        (REPORT_JOB, ("resnet56--resnet20",), ()),
    ]


def test_runs_that_share_a_device() -> None:
    assert shared_seconds(estimate(100.0, 0.25), 5) == 500
    assert shared_seconds(estimate(100.0, 0.25), 5, 4) == 175 + 100  # four in parallel, then one
    assert shared_seconds(estimate(100.0, 0.5), 5, 2) == 2 * 150 + 100
    assert shared_seconds(estimate(100.0, 1.0), 5, 5) == 500
    assert shared_seconds(estimate(100.0, 0.1), 0, 5) == 0
    with pytest.raises(ValueError, match="at least 1"):
        shared_seconds(estimate(), 5, 0)
