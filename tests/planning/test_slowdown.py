"""Runs that share a GPU as lanes: the H200's measured constants, records of lanes, packing."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.common.gpu_state import GpuState
from skd.planning import local_lanes
from skd.planning.batches import JobShape, make_batches
from skd.planning.devices import DEVICE_MODELS, PlannedDevice, assumed_for_photos
from skd.planning.estimates import choose_device, estimate_run
from skd.planning.job_graph import shared_seconds
from skd.planning.job_resources import batch_job_resources
from skd.planning.side_by_side import lane_cores, runs_side_by_side, useful_lanes
from skd.planning.slowdown import fitted_utilisation, seconds_alone, slowdown
from skd.planning.step_model import StepNetworks, evaluation_seconds, step_seconds
from skd.planning.survey import survey_study
from skd.planning.timings import latest_execution
from skd.store.store import Store
from skd.store.teacher_view_files import ViewsFile
from skd.study.expansion import ObjectiveProfile
from tests.builders.planned_studies import (
    CPU,
    CRD,
    GPU,
    H200,
    IMAGES,
    leave_views_card,
    network,
    study,
    timing,
    timings,
)

REVIEWKD = {
    "resnet20": ObjectiveProfile(parameters=114_278, bytes=460_632, multiply_adds=18_735_104),
    "resnet8x4": ObjectiveProfile(parameters=1_808_774, bytes=7_248_984, multiply_adds=295_632_896),
}
LIVE = {"resnet20": "resnet56", "resnet8x4": "resnet32x4"}
# Steps a second on one H200, all lanes together, batch 64, TF32, deterministic, recorded. KD, SKD
# and CRD look up stored teacher views; ReviewKD runs its teacher.
COMPILED = [
    ("resnet20", "kd", 1, 457),
    ("resnet20", "kd", 4, 909),
    ("resnet20", "kd", 8, 1054),
    ("resnet20", "kd", 16, 1140),
    ("resnet20", "skd", 8, 1043),
    ("resnet20", "crd", 8, 722),
    ("resnet20", "reviewkd", 4, 286),  # only its student was compiled
    ("resnet8x4", "kd", 1, 532),
    ("resnet8x4", "kd", 4, 628),
]
NOT_COMPILED = [
    ("resnet20", "kd", 1, 356),
    ("resnet20", "kd", 16, 530),
    ("resnet20", "crd", 1, 278),
    ("resnet20", "crd", 4, 374),
    ("resnet20", "reviewkd", 1, 156),
    ("resnet20", "reviewkd", 4, 203),
    ("resnet8x4", "kd", 1, 472),
    ("resnet8x4", "kd", 8, 472),
    ("resnet8x4", "reviewkd", 1, 121),
]


def modelled_rate(student: str, method: str, lanes: int) -> float:
    """Return the modelled steps per second of all lanes together."""
    live = method == "reviewkd"
    extra = {"crd": CRD, "reviewkd": REVIEWKD[student]}.get(method, ObjectiveProfile())
    networks = StepNetworks(network(student), network(LIVE[student]) if live else None, extra)
    return 1 / step_seconds(networks, 64, H200, lanes)


@pytest.mark.parametrize(("student", "method", "lanes", "rate"), COMPILED)
def test_the_h200_is_near_what_was_measured(student, method, lanes, rate) -> None:
    assert rate / 1.3 < modelled_rate(student, method, lanes) < 1.4 * rate


@pytest.mark.parametrize(("student", "method", "lanes", "rate"), NOT_COMPILED)
def test_steps_that_are_not_compiled_are_up_to_about_twice_as_slow(
    student, method, lanes, rate
) -> None:
    assert rate / 1.2 < modelled_rate(student, method, lanes) < 2.2 * rate


def test_evaluation_and_views_on_the_h200() -> None:
    assert 0.034 / 1.5 < evaluation_seconds(network("resnet20"), IMAGES, H200) < 1.5 * 0.034
    work = 50_000 * 162 * network("resnet56").multiply_adds
    assert 64 / 1.5 < work / H200.rate < 1.5 * 64


def test_which_constants_were_fitted() -> None:
    fitted = {name for name, model in DEVICE_MODELS.items() if model.fitted_to}
    assert fitted == {"h200", "cpu"}
    assert DEVICE_MODELS["h200"].basis.startswith("fitted to measurements of one H200")
    assert DEVICE_MODELS["h100"].basis == "assumed"
    assert assumed_for_photos(DEVICE_MODELS["h200"]).basis == "assumed"


def estimated(*rows, device: PlannedDevice = GPU, cell: str = "kd"):
    expansion = study()
    planned_cell = expansion.cell("resnet56--resnet20", cell)
    known = timings(*(timing(planned_cell.spec, device.name, **row) for row in rows))
    return estimate_run(expansion, planned_cell, known, device)


def rate(steps: float) -> float:
    """Return images a second."""
    return 64 * steps


def lanes_of(count: int, step: float, epoch: float = 6.0) -> dict[str, float]:
    """Return the timings in the record of each of several lanes."""
    return {"images_per_second": 64 / step, "sharing": count, "seconds_per_epoch": epoch}


def test_two_numbers_of_lanes_determine_the_utilisation() -> None:
    alone = [{**lanes_of(1, step), "gpu_utilisation": 100.0} for step in (0.8e-3, 1.2e-3)]
    estimate = estimated(*alone, lanes_of(16, 4e-3, epoch=24.0))
    assert estimate.utilisation_or_one == pytest.approx(0.2)
    assert estimate.seconds_per_step == pytest.approx(1e-3)
    assert estimate.seconds == pytest.approx(240 * 6.0)
    assert shared_seconds(estimate, 16, 16) == pytest.approx(240 * 24.0)
    estimate = estimated(lanes_of(4, 1.6e-3), lanes_of(16, 4e-3))  # no run was alone
    assert estimate.utilisation_or_one == pytest.approx(0.2)
    assert estimate.seconds_per_step == pytest.approx(1e-3)


@given(alone=st.floats(1e-4, 10), busy=st.floats(0.05, 1), more=st.sets(st.integers(1, 16)))
def test_the_fit_finds_what_follows_the_law(alone, busy, more) -> None:
    measured = {count: alone * slowdown(count, busy) for count in {2, 5, *more}}
    assert fitted_utilisation(measured) == pytest.approx(busy)
    assert seconds_alone(measured, busy) == pytest.approx(alone)


@given(st.dictionaries(st.integers(1, 16), st.floats(1e-4, 10), min_size=2))
def test_a_fit_of_anything_is_a_utilisation(measured) -> None:
    busy = fitted_utilisation(measured)
    assert 0.05 <= busy <= 1
    assert seconds_alone(measured, busy) > 0


def test_the_fit_of_the_h200s_lanes() -> None:
    measured = {1: 1 / 457, 4: 4 / 909, 8: 8 / 1054, 16: 16 / 1140}
    busy = fitted_utilisation(measured)
    assert busy == pytest.approx(0.36, abs=0.01)
    alone = seconds_alone(measured, busy)
    for count, seconds in measured.items():
        assert alone * slowdown(count, busy) == pytest.approx(seconds, rel=0.03)


@pytest.mark.parametrize(("device", "known"), [(GPU, 1.0), (H200, 0.375)])
def test_one_number_of_lanes_does_not_determine_the_utilisation(device, known) -> None:
    modelled = estimated(device=device).utilisation
    estimate = estimated({**lanes_of(4, 4e-3, epoch=24.0), "gpu_utilisation": 50.0}, device=device)
    assert estimate.utilisation_or_one == pytest.approx(known)
    assert estimate.utilisation == pytest.approx(modelled)
    assert estimate.seconds_per_step == pytest.approx(4e-3 / slowdown(4, modelled))
    assert shared_seconds(estimate, 4, 4) == pytest.approx(240 * 24.0)  # as it was measured


def test_lanes_that_do_not_help_leave_the_device_full() -> None:
    slower = {"images_per_second": rate(90), "sharing": 4}
    estimate = estimated({"images_per_second": rate(400)}, slower)
    assert estimate.utilisation_or_one == 1.0


def test_no_device_is_shared_on_a_guess() -> None:
    assert estimated().utilisation_or_one == 1.0
    assert estimated({}).utilisation_or_one == 1.0  # alone, and the driver did not report it
    assert estimated({"gpu_utilisation": 40.0}).utilisation_or_one == pytest.approx(0.4)
    assert estimated().utilisation < 1


def test_fitted_constants_are_used_until_lanes_are_measured() -> None:
    for rows in ([], [{}], [{"gpu_utilisation": 100.0}]):
        assert estimated(*rows, device=H200).utilisation_or_one == pytest.approx(0.375)
    rows = [lanes_of(1, 1e-3), lanes_of(11, 3.5e-3)]
    assert estimated(*rows, device=H200).utilisation_or_one == pytest.approx(0.25)


def test_on_a_cpu_those_that_share_have_cores_of_their_own() -> None:
    shared = {"images_per_second": 100.0, "sharing": 4, "threads": 1}
    estimate = estimated(shared, {**shared, "sharing": 2, "images_per_second": 200.0}, device=CPU)
    assert estimate.seconds_per_step == pytest.approx((64 / 100 + 64 / 200) / 2)
    assert estimate.utilisation_or_one == 1.0
    expansion = study()
    cell = expansion.cell("resnet20", "student")
    modelled = step_seconds(StepNetworks(network("resnet20")), 64, CPU)
    row = timing(cell.spec, "a cpu", threads=1, sharing=2, images_per_second=64 / modelled / 3)
    assert choose_device(expansion, timings(row)).scale == pytest.approx(3)


@pytest.mark.parametrize("lanes", [1, 2, 16])
def test_a_lanes_speed_is_not_taken_for_the_devices(lanes) -> None:
    expansion = study()
    cell = expansion.cell("resnet20", "student")
    modelled = step_seconds(StepNetworks(network("resnet20")), 64, H200, lanes)
    speed = 64 / (1.5 * modelled * lanes)
    row = timing(cell.spec, "NVIDIA H200", images_per_second=speed, sharing=lanes)
    assert choose_device(expansion, timings(row)).scale == pytest.approx(1.5)


@pytest.mark.parametrize(
    "way", [{"step": "eager"}, {"precision": "bfloat16"}, {"compiled": True}, {"kernels": "h200-1"}]
)
def test_only_runs_that_were_executed_alike_are_compared(way) -> None:
    old = {"images_per_second": rate(100), "finished_at": "2026-01-01T00:00:00+00:00"}
    new = {"images_per_second": rate(300), "finished_at": "2026-02-01T00:00:00+00:00", **way}
    for rows in ([old, new], [new, old]):
        assert estimated(*rows).seconds_per_step == pytest.approx(1 / 300)
    assert latest_execution([]) == []


# The number of lanes.


@given(busy=st.floats(0.01, 1))
def test_as_many_lanes_as_help(busy) -> None:
    def speed(count: int) -> float:
        return count / (1 + (count - 1) * busy)

    lanes = useful_lanes(busy)
    assert 1 <= lanes <= 16
    assert lanes == 16 or speed(lanes) >= (0.95 - 1e-6) / busy
    assert lanes == 1 or speed(lanes - 1) < 0.95 / busy


def test_lanes_by_hand() -> None:
    assert [useful_lanes(busy) for busy in (0.4, 0.5, 0.8, 0.95, 1.0)] == [16, 16, 5, 1, 1]
    assert runs_side_by_side(None, 45, 140 * 2**30, 2**30, 0.5) == 16
    assert [lane_cores(lanes) for lanes in (1, 3, 16)] == [1, 3, 4]


def test_a_run_that_several_devices_train_has_them_alone(tmp_path: Path) -> None:
    expansion = study()
    key = expansion.cells[0].key
    alone = survey_study(expansion, Store(tmp_path), timings(), H200, None)
    several = PlannedDevice("h200", H200.model, processes=2)
    assert alone.runs_side_by_side_of(key) == 3
    assert (
        survey_study(expansion, Store(tmp_path), timings(), several, None).runs_side_by_side_of(key)
        == 1
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> GpuState:
    state = GpuState(140 * 2**30, 140 * 2**30, 100.0, "595", "NVIDIA A100")
    monkeypatch.setattr(local_lanes, "gpu_state", lambda: state)
    return state


def test_lanes_share_a_few_cores_and_the_memory_of_one_process(tmp_path: Path) -> None:
    expansion, store = study(seeds=20), Store(tmp_path)
    one, most = (survey_study(expansion, store, timings(), H200, lanes) for lanes in (1, None))
    batch = next(b for b in make_batches(expansion, JobShape(), dict).batches if b.name == "kd")
    assert [batch_job_resources(survey, batch, 1, None).cores for survey in (one, most)] == [1, 4]
    alone, sixteen = (
        batch_job_resources(survey, batch, 1, None).memory_mb for survey in (one, most)
    )
    assert sixteen < 4 * alone


def test_a_gpu_that_was_never_measured_is_known_by_its_name(tmp_path, gpu, monkeypatch) -> None:
    expansion, store = study(seeds=20), Store(tmp_path)
    cells = [expansion.cell("resnet56--resnet20", "kd")]
    assert local_lanes.choose_lanes(None, expansion, cells, store, 20) == 1
    for name, lanes in {"NVIDIA H200": 16, "NVIDIA H200 MIG 1g.18gb": 1}.items():
        state = replace(gpu, name=name)
        monkeypatch.setattr(local_lanes, "gpu_state", lambda state=state: state)
        assert local_lanes.choose_lanes(None, expansion, cells, store, 20) == lanes


def test_a_job_uses_what_is_known_of_the_runs_with_stored_views(tmp_path, gpu, monkeypatch) -> None:
    expansion, store = study(seeds=20), Store(tmp_path)
    cell = expansion.cell("resnet56--resnet20", "kd")
    cell = cell.model_copy(update={"needs": ("teacher_logits",)})
    row = timing(cell.spec, "NVIDIA A100", stored_teacher=True, gpu_utilisation=80.0)
    monkeypatch.setattr(local_lanes, "load_timings", lambda _: timings(row))
    choose = partial(local_lanes.choose_lanes, None, expansion, [cell], store, 20)
    assert choose() == 1  # a live teacher: nothing was measured
    entry = store.teacher(expansion.teacher("resnet56").id)
    file = ViewsFile(entry, expansion.dataset, "logits", "float16")
    file.folder.mkdir(parents=True)
    file.path.write_bytes(b"")
    leave_views_card(file)
    assert choose() == 5
