"""The cells that share a job, and the resources of such a job."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from skd.planning.batches import (
    JobShape,
    StudyBatches,
    batches_path,
    make_batches,
    plan_batches,
    save_batches,
)
from skd.study.expansion import Expansion
from tests.builders.planned_studies import study

PAIRS = (("resnet56", "resnet20"), ("vgg13", "resnet20"), ("vgg13", "MobileNetV2"))
METHODS = ("student", "kd", "crd", "skd", "at")
STUDY = study(PAIRS, METHODS)
KEYS = [cell.key for cell in STUDY.cells]
TEN = dict.fromkeys(KEYS, 10.0)
FIRST = "resnet56--resnet20"


def batches_of(
    shape: JobShape, seconds: dict[str, float] = TEN, of: Expansion = STUDY
) -> StudyBatches:
    return make_batches(of, shape, lambda: seconds)


def keys(batches: StudyBatches) -> list[list[str]]:
    return [[f"{b.pair}/{method}" for method in b.methods] for b in batches.batches]


def test_a_cell_is_a_job_by_default() -> None:
    batches = batches_of(JobShape())
    assert keys(batches) == [[key] for key in KEYS]
    assert [batch.path for batch in batches.batches] == [cell.path for cell in STUDY.cells]


def test_small_cells_of_a_pair_share_a_job() -> None:
    batches = batches_of(JobShape(job_minutes=20 / 60))
    assert keys(batches)[:3] == [
        ["resnet20/student"],
        [f"{FIRST}/kd", f"{FIRST}/crd"],
        [f"{FIRST}/skd", f"{FIRST}/at"],
    ]
    assert batches.batches[1].name == "kd-and-1-more"


def test_a_job_has_exactly_the_configured_number_of_cells() -> None:
    sizes = [len(group) for group in keys(batches_of(JobShape(cells_per_job=3), {}))]
    assert sizes == [1, 3, 1, 3, 1, 1, 3, 1]


def test_impossible_shapes_are_refused() -> None:
    for wrong in ({"job_minutes": -1}, {"cells_per_job": 0}, {"cells": 1}):
        with pytest.raises(ValidationError):
            JobShape.model_validate(wrong)


@given(
    seconds=st.dictionaries(st.sampled_from(KEYS), st.floats(0, 1e5)),
    minutes=st.floats(0, 1e3),
    size=st.none() | st.integers(1, 6),
)
def test_each_cell_is_in_one_job_that_is_small_enough(seconds, minutes, size) -> None:
    batches = batches_of(JobShape(job_minutes=minutes, cells_per_job=size), seconds)
    groups = keys(batches)
    assert sorted(key for group in groups for key in group) == sorted(KEYS)
    assert len({batch.path for batch in batches.batches}) == len(groups)
    for group in groups:
        assert len({key.split("/")[0] for key in group}) == 1
        if size is not None:
            assert len(group) <= size
        elif len(group) > 1:
            total = sum(seconds.get(key, float("inf")) for key in group)
            assert total <= 60 * minutes * (1 + 1e-9)


def test_what_was_put_together_stays_together(tmp_path: Path) -> None:
    shape = JobShape(job_minutes=20 / 60)
    first = plan_batches(STUDY, tmp_path, shape, lambda: TEN)
    save_batches(first, tmp_path, STUDY.study)
    slower = dict.fromkeys(KEYS, 1000.0)
    assert plan_batches(STUDY, tmp_path, shape, lambda: slower) == first

    def nobody_asks() -> dict[str, float]:
        raise AssertionError("measured again")

    assert plan_batches(STUDY, tmp_path, shape, nobody_asks) == first


def test_a_new_shape_is_for_what_is_not_done(tmp_path: Path) -> None:
    first = plan_batches(STUDY, tmp_path, JobShape(job_minutes=20 / 60), lambda: TEN)
    save_batches(first, tmp_path, STUDY.study)
    done = first.batches[1]
    file = batches_path(tmp_path, STUDY.study).parent / "cells" / f"{done.path}.json"
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    second = plan_batches(STUDY, tmp_path, JobShape(), lambda: TEN)
    assert [batch for batch in second.batches if len(batch.methods) > 1] == [done]
    assert sorted(key for group in keys(second) for key in group) == sorted(KEYS)


def test_another_seed_makes_other_batches() -> None:
    more = study(PAIRS, METHODS, seeds=4)
    shape = JobShape(job_minutes=20 / 60)
    first = batches_of(shape)
    again = make_batches(more, shape, lambda: TEN, first)
    assert not {batch.path for batch in first.batches} & {batch.path for batch in again.batches}
    assert keys(first) == keys(again)


def test_a_batch_is_found_by_what_names_its_file() -> None:
    batches = batches_of(JobShape(cells_per_job=2))
    batch = batches.batches[1]
    assert batches.find(batch.pair, batch.name, batch.digest) is batch
    assert batches.find(batch.pair, batch.name, "00000000") is None
