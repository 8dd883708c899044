"""How many runs share a device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.common.errors import UnknownNameError
from skd.planning.estimates import default_device, estimate_run
from skd.planning.side_by_side import runs_side_by_side, useful_lanes
from tests.builders.planned_studies import study, timing, timings

# The resources of a job.


@given(
    requested=st.none() | st.integers(1, 20),
    runs=st.integers(1, 20),
    free=st.integers(0, 10**11),
    each=st.integers(1, 10**10),
    busy=st.floats(0.01, 1),
    attempt=st.integers(1, 4),
)
def test_no_more_runs_share_a_device_than_fit(requested, runs, free, each, busy, attempt) -> None:
    count = runs_side_by_side(requested, runs, free, each, busy, attempt)
    assert 1 <= count <= runs
    if requested is not None:
        assert count <= requested
    elif not free:
        assert count == 1
    elif count > 1:
        assert count * each <= 0.9 * free
        assert count <= useful_lanes(busy)
    if attempt > 1:
        assert count <= max(1, runs_side_by_side(requested, runs, free, each, busy) // 2)


def test_plans_rest_on_timings_of_the_kind_of_device_that_is_expected() -> None:
    expansion = study()
    cell = expansion.cells[0]
    on_cpu = timings(timing(cell.spec, device="a cpu, 1 thread", threads=1))
    on_both = timings(
        timing(cell.spec, device="a cpu, 1 thread", threads=1),
        timing(cell.spec, device="NVIDIA H200"),
    )
    assert default_device(expansion, on_cpu, "a100").name == "a100"
    assert default_device(expansion, on_both, "a100").name == "NVIDIA H200"
    assert default_device(expansion, on_both, "cpu").name == "a cpu, 1 thread"
    with pytest.raises(UnknownNameError, match="allowed: a100"):
        default_device(expansion, on_cpu, "a1000")


def test_what_was_sampled_counts_only_where_no_run_shared_the_device() -> None:
    expansion = study()
    cell = expansion.cells[0]
    device = default_device(expansion, timings(), "a100")

    def share(**measured: float) -> float:
        known = timings(timing(cell.spec, device=device.name, **measured))
        return estimate_run(expansion, cell, known, device).utilisation

    assert share(gpu_utilisation=30.0) == pytest.approx(0.3)
    assert share(gpu_utilisation=90.0, sharing=3) == pytest.approx(share())
