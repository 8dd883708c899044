"""Jobs and bundles of a study."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import estimate, study

from skd.planning.jobs import REPORT, STARTUP_SECONDS, bundles, shared_seconds, study_jobs

PAIRS = (("resnet56", "resnet20"), ("vgg13", "resnet20"), ("vgg13", "MobileNetV2"))
METHODS = ("student", "kd", "crd", "skd", "at")
STUDY = study(PAIRS, METHODS)
KEYS = [cell.key for cell in STUDY.cells]
PAIR_OF = {cell.key: cell.pair for cell in STUDY.cells}


def groups(names: dict[str, str]) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    for key, name in names.items():
        found.setdefault(name, []).append(key)
    return [*found.values()]


def test_small_cells_of_a_pair_share_a_job() -> None:
    names = bundles(STUDY, dict.fromkeys(KEYS, 10.0), 20.0, None)
    first = "resnet56--resnet20"
    assert groups(names)[:3] == [
        ["resnet20/student"],
        [f"{first}/kd", f"{first}/crd"],
        [f"{first}/skd", f"{first}/at"],
    ]
    assert names[f"{first}/at"] == "resnet56_resnet20_2"


def test_exactly_so_many_cells_a_job() -> None:
    names = bundles(STUDY, dict.fromkeys(KEYS, 10.0), 1.0, 3)
    assert [len(group) for group in groups(names)] == [1, 3, 1, 3, 1, 1, 3, 1]


@pytest.mark.parametrize(("target", "size"), [(0.0, None), (1.0, 0)])
def test_impossible_jobs_are_refused(target, size) -> None:
    with pytest.raises(ValueError, match="per job"):
        bundles(STUDY, dict.fromkeys(KEYS, 10.0), target, size)


@given(
    seconds=st.dictionaries(st.sampled_from(KEYS), st.floats(0, 1e5)),
    target=st.floats(0.1, 1e5),
    size=st.none() | st.integers(1, 6),
)
def test_bundles_hold_each_cell_once(seconds, target, size) -> None:
    names = bundles(STUDY, seconds, target, size)
    assert set(names) == set(seconds)
    assert names == bundles(STUDY, dict(reversed(seconds.items())), target, size)
    for group in groups(names):
        assert len({PAIR_OF[key] for key in group}) == 1
        if size is None:
            total = sum(seconds[key] for key in group)
            assert len(group) == 1 or total <= target * (1 + 1e-9)
        else:
            assert len(group) <= size
        places = [[k for k in KEYS if k in seconds].index(key) for key in group]
        assert places == [*range(places[0], places[0] + len(places))]
    for name in names.values():
        assert re.fullmatch(r"[A-Za-z0-9_]{1,50}", name)


def test_pairs_that_are_written_alike_have_names_of_their_own() -> None:
    cell = STUDY.cells[1]
    pairs = ("a.b--c", "a_b--c", "a_b--c_1")
    cells = tuple(cell.model_copy(update={"pair": pair}) for pair in pairs)
    twins = STUDY.model_copy(update={"cells": cells})
    names = bundles(twins, {cell.key: 1.0 for cell in twins.cells}, 1e9, None)
    assert len(set(names.values())) == 3


def test_the_graph() -> None:
    seconds = dict.fromkeys(KEYS, 10.0)
    names = bundles(STUDY, seconds, 1e9, None)
    jobs = study_jobs(STUDY, {"resnet56": 100.0, "vgg13": 200.0}, seconds, names)
    by_name = {job.name: job for job in jobs}
    assert by_name["teacher vgg13"].seconds == 200 + STARTUP_SECONDS
    assert by_name["vgg13_MobileNetV2_1"].needs == ("teacher vgg13",)
    assert by_name["vgg13_MobileNetV2_1"].seconds == 4 * 10 + STARTUP_SECONDS
    assert by_name["resnet20_1"].needs == ()
    assert set(by_name[REPORT].needs) == set(by_name) - {REPORT}
    seen: set[str] = set()
    for job in jobs:
        assert set(job.needs) <= seen
        seen.add(job.name)


def test_what_is_done_is_no_job() -> None:
    names = bundles(STUDY, dict.fromkeys(KEYS, 10.0), 1e9, None)
    jobs = study_jobs(STUDY, {}, {"resnet56--resnet20/crd": 5.0}, names)
    assert [(job.name, job.needs, job.parts) for job in jobs] == [
        ("resnet56_resnet20_1", (), ("resnet56--resnet20/crd",)),
        (REPORT, ("resnet56_resnet20_1",), ()),
    ]


def test_runs_that_share_a_device() -> None:
    assert shared_seconds(estimate(100.0, 0.25), 5) == 500
    assert shared_seconds(estimate(100.0, 0.25), 5, 4) == 200  # four at once, then one
    assert shared_seconds(estimate(100.0, 0.5), 5, 4) == 2 * 100 + 100
    assert shared_seconds(estimate(100.0, 1.0), 5, 5) == 500
    assert shared_seconds(estimate(100.0, 0.1), 0, 5) == 0
    with pytest.raises(ValueError, match="at least 1"):
        shared_seconds(estimate(), 5, 0)
