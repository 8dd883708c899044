"""The estimate of one training: against measured steps, by hand, and its properties."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.common.errors import UnknownNameError
from skd.planning.devices import DEVICE_MODELS, device_model_of
from skd.planning.estimates import (
    CONTEXT_BYTES,
    choose_device,
    estimate_run,
    estimate_teacher,
    model_training,
)
from skd.planning.step_model import StepNetworks, evaluation_seconds, step_seconds, training_bytes
from skd.study.expansion import NetworkProfile
from skd.study.spec import Recipe
from tests.builders.planned_studies import CPU, CRD, GPU, IMAGES, network, study, timing, timings

# Seconds a step at batch 64 on one thread of an AMD EPYC.
MEASURED_STEPS = [
    ("resnet20", None, 0.42),
    ("resnet20", "resnet56", 0.79),
    ("MobileNetV2", None, 0.22),
    ("MobileNetV2", "vgg13", 0.76),
]


@pytest.mark.parametrize(("student", "teacher", "seconds"), MEASURED_STEPS)
def test_the_cpu_model_is_near_what_was_measured(student, teacher, seconds) -> None:
    networks = StepNetworks(network(student), network(teacher) if teacher else None)
    assert seconds / 2.5 < step_seconds(networks, 64, CPU) < 2.5 * seconds


def test_a_step_by_hand() -> None:
    student = NetworkProfile(parameters=1, multiply_adds=10**8, activations=1, layers=10, family="")
    teacher = NetworkProfile(
        parameters=1, multiply_adds=2 * 10**8, activations=1, layers=20, family=""
    )
    networks = StepNetworks(student, teacher, CRD)
    work = 64 * (3 * (10**8 + CRD.multiply_adds) + 2 * 10**8)
    assert step_seconds(networks, 64, GPU) == pytest.approx(work / 8e12)
    # One image is so little work that the launch takes most of the time.
    assert step_seconds(networks, 1, GPU) == pytest.approx((3 * 10 + 20 + 50 + 100) * 14e-6)
    # Lanes overlap, but work that already fills the device does not get faster.
    sixteen = 200 * (14e-6 + 15 * 5.25e-6) / 16
    assert step_seconds(networks, 1, GPU, lanes=16) == pytest.approx(sixteen)
    assert step_seconds(networks, 64, GPU, lanes=16) == pytest.approx(work / 8e12)
    assert evaluation_seconds(student, IMAGES, GPU) == pytest.approx(10_000 * 1e8 / 8e12)


def test_memory_by_hand() -> None:
    student, teacher = network("resnet20"), network("resnet56")
    pixels = 60_000 * 3 * 32 * 32
    weights = 3 * (student.parameters + CRD.parameters) + teacher.parameters
    buffers = CRD.bytes - 4 * CRD.parameters
    activations = 64 * (2 * student.activations + teacher.activations // 2)
    expected = pixels + 4 * (weights + activations) + buffers
    assert training_bytes(StepNetworks(student, teacher, CRD), 64, IMAGES) == expected


def test_a_whole_training_by_hand() -> None:
    expansion = study(epochs=10, milestones=())
    cell = expansion.cell("resnet20", "student")
    estimate = estimate_run(expansion, cell, timings(), CPU)
    step = 64 * 3 * 40_818_944 / 12e9
    evaluation = 10_000 * 40_818_944 / 12e9
    assert estimate.seconds_per_step == pytest.approx(step)
    assert estimate.seconds == pytest.approx(10 * (782 * step + evaluation))
    assert estimate.disk_bytes == pytest.approx(4 * 278_324 + 2 * 10_000 * 100, rel=0.01)
    assert estimate.checkpoint_bytes == 2 * 2 * 4 * 278_324
    assert (estimate.device_bytes, estimate.utilisation, estimate.source) == (0, 1.0, "model")
    assert estimate.host_bytes > 600 * 2**20


def test_a_device_has_its_memory_on_the_device() -> None:
    expansion = study()
    estimate = estimate_run(expansion, expansion.cells[0], timings(), GPU)
    assert CONTEXT_BYTES < estimate.device_bytes < 2 * 2**30
    assert 0 < estimate.utilisation <= 1


def test_what_was_measured_is_right() -> None:
    expansion = study()
    cell = expansion.cell("resnet56--resnet20", "kd")
    rows = timings(timing(cell.spec), timing(cell.spec, seconds_per_epoch=8.0))
    device = choose_device(expansion, rows)
    estimate = estimate_run(expansion, cell, rows, device)
    assert (device.name, device.model.name) == ("NVIDIA A100-SXM4-40GB", "a100")
    assert estimate.source == "measured"
    assert estimate.seconds == pytest.approx(240 * 7.0)
    assert estimate.seconds_per_step == pytest.approx(64 / 10_000)
    assert estimate.device_bytes == CONTEXT_BYTES + 1.2 * 10**9


def test_the_rest_is_scaled_by_the_median_ratio() -> None:
    expansion = study()
    kd = expansion.cell("resnet56--resnet20", "kd")
    modelled = step_seconds(StepNetworks(network("resnet20"), network("resnet56")), 64, GPU)
    rows = timings(
        *(timing(kd.spec, images_per_second=64 / (k * modelled)) for k in (2.0, 3.0, 9.0))
    )
    device = choose_device(expansion, rows)
    assert device.scale == pytest.approx(3.0)
    other = expansion.cell("resnet20", "student")
    plain = estimate_run(expansion, other, rows, replace(device, scale=None))
    scaled = estimate_run(expansion, other, rows, device)
    assert (plain.source, scaled.source) == ("model", "scaled")
    assert scaled.seconds == pytest.approx(3 * plain.seconds)


def test_another_batch_or_limit_or_device_is_not_the_same_training() -> None:
    expansion = study()
    cell = expansion.cells[0]
    limited = cell.spec.dataset.model_copy(update={"train_limit": 100})
    rows = timings(
        timing(cell.spec, batch_size=32),
        timing(cell.spec, dataset=limited),
        timing(cell.spec, device="Tesla V100"),
    )
    device = choose_device(expansion, rows, "NVIDIA A100-SXM4-40GB")
    assert estimate_run(expansion, cell, rows, device).source == "scaled"


def test_which_device() -> None:
    expansion = study()
    spec = expansion.cells[0].spec
    other = spec.dataset.model_copy(update={"name": "digits"})
    cpu = {"device": "AMD EPYC, 2 threads", "threads": 2}
    rows = timings(
        timing(spec),
        timing(spec, device="NVIDIA H100 80GB HBM3"),
        timing(spec, device="NVIDIA H100 80GB HBM3"),
        *(timing(spec, dataset=other, **cpu) for _ in range(5)),
    )
    assert (
        choose_device(expansion, rows).name == "NVIDIA H100 80GB HBM3"
    )  # most timings of its data
    assert choose_device(expansion, rows, model="a100").name == "NVIDIA A100-SXM4-40GB"
    assert choose_device(expansion, rows, model="v100").name == "v100"
    chosen = choose_device(expansion, rows, name="AMD EPYC, 2 threads")
    assert (chosen.model.name, chosen.threads, chosen.rate) == ("cpu", 2, 24e9)
    assert choose_device(expansion, timings()).name == "a100"
    with pytest.raises(UnknownNameError, match="allowed: AMD EPYC, 2 threads, NVIDIA H100"):
        choose_device(expansion, rows, "H10")
    with pytest.raises(UnknownNameError, match="allowed: a100, h100"):
        choose_device(expansion, rows, model="a10")


def test_recorded_names_are_recognised() -> None:
    assert device_model_of("NVIDIA GeForce RTX 3090", on_cpu=False).name == "rtx3090"
    assert device_model_of("NVIDIA H200", on_cpu=False).name == "h200"
    assert device_model_of("NVIDIA H100 80GB HBM3", on_cpu=False).name == "h100"
    assert device_model_of("Tesla V100-SXM2-16GB", on_cpu=False).name == "v100"
    for other in ("something new", "NVIDIA GH200 480GB", "NVIDIA H200 MIG 1g.18gb"):
        assert device_model_of(other, on_cpu=False) == DEVICE_MODELS["a100"]
    assert device_model_of("AMD EPYC", on_cpu=True).name == "cpu"


def test_teachers_are_trained_or_only_evaluated() -> None:
    trained, imported = study(), study(imported=("resnet56",))
    long = estimate_teacher(trained, trained.teachers[0], timings(), GPU)
    short = estimate_teacher(imported, imported.teachers[0], timings(), GPU)
    assert short.seconds < long.seconds / 1000
    assert short.checkpoint_bytes == 0
    rows = timings(timing(trained.teachers[0].spec.run))
    device = choose_device(trained, rows)
    assert estimate_teacher(trained, trained.teachers[0], rows, device).source == "measured"


@given(
    student=st.sampled_from(["resnet20", "MobileNetV2", "vgg13"]),
    taught=st.booleans(),
    batch=st.integers(1, 1024),
    device=st.sampled_from(sorted(DEVICE_MODELS)),
)
def test_more_to_do_never_takes_less(student, taught, batch, device) -> None:
    place = replace(GPU, model=DEVICE_MODELS[device])
    alone = StepNetworks(network(student))
    more = StepNetworks(network(student), network("resnet56") if taught else None, CRD)
    recipe = Recipe(batch_size=batch)
    less, longer = (model_training(n, recipe, IMAGES, place) for n in (alone, more))
    assert longer.seconds >= less.seconds
    assert longer.host_bytes + longer.device_bytes > less.host_bytes + less.device_bytes
    assert 0 < longer.utilisation <= 1
