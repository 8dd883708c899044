"""The resources that a rule requests from SLURM, by networks, methods and attempts."""

from pathlib import Path

import pytest

from skd.common.errors import SkdError
from skd.planning.batches import JobShape, make_batches
from skd.planning.job_resources import batch_job_resources, teacher_job_resources
from skd.planning.side_by_side import parse_side_by_side
from skd.planning.survey import survey_study
from skd.store.store import Store
from tests.builders.planned_studies import GPU, study, timings


def test_a_number_or_auto() -> None:
    assert (parse_side_by_side("auto"), parse_side_by_side("3")) == (None, 3)
    for wrong in ("0", "-1", "many", ""):
        with pytest.raises(SkdError, match="must be auto or a whole number of at least 1"):
            parse_side_by_side(wrong)


def test_requests_follow_networks_methods_and_attempts(tmp_path: Path) -> None:
    expansion = study((("vgg13", "MobileNetV2"), ("resnet56", "resnet20")))
    survey = survey_study(expansion, Store(tmp_path), timings(), GPU, 1)
    requests = {
        f"{batch.pair}/{batch.name}": batch_job_resources(survey, batch, 1, None)
        for batch in make_batches(expansion, JobShape(), dict).batches
    }
    assert requests["vgg13--MobileNetV2/kd"].minutes > requests["MobileNetV2/student"].minutes
    batch = next(b for b in make_batches(expansion, JobShape(), dict).batches if b.name == "kd")
    first, second = (batch_job_resources(survey, batch, attempt, None) for attempt in (1, 2))
    assert second.minutes == 2 * first.minutes
    assert second.memory_mb == pytest.approx(2 * first.memory_mb, abs=1)
    assert batch_job_resources(survey, batch, 5, 60).minutes == 60
    assert teacher_job_resources(survey, "vgg13", 1, None).minutes >= 10
