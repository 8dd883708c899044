"""Recipes with strong augmentation, mixing and a strong view: resumed, divided, recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.data import load_dataset as load_images
from skd.losses.term import main_target
from skd.models import build_model
from skd.models.network import FeatureNetwork
from skd.store.store import StoreEntry
from skd.training.data_parallel import BatchPartition, DivisionError
from skd.training.execution import choose_execution
from skd.training.loop import Training
from skd.training.resources import DeviceDataset, TeacherRequest
from skd.training.stored_views import TeacherViewsError
from skd.training.teacher import LiveTeacher
from tests.builders import tiny
from tests.builders.emulated_cuda_graph import emulate_recording
from tests.builders.steps import assert_same_bits, train

CPU = torch.device("cpu")
RECIPE = {"epochs": 2, "milestones": [1], "batch_size": 32}
GROUPS = {"bn_batch": 8, "last_batch": "drop"}
TRIVIAL_MIXUP = {"augmentation": "trivialaugment", "mixing": "mixup"}
RAND_CUTMIX = {"augmentation": "randaugment", "randaugment_magnitude": 15, "mixing": "cutmix"}
# Method and the recipe's changes.
CASES = [("student", TRIVIAL_MIXUP), ("skd", RAND_CUTMIX), ("mlkd_two_views", {})]
STEPS = 5  # three an epoch, the last of 16


def training_of(
    method: str, changes: dict[str, Any], division: BatchPartition | None = None, **options: Any
) -> Training:
    alone = method == "student"
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # the dtype of the trials that an expansion caches
    settings = {"simplifier": {"group": 8, "learning_rate_multiplier": 1.0}}
    study = tiny.study(recipe={**RECIPE, **changes}, settings=settings, methods=[method])
    torch.set_default_dtype(kind)
    cell = study.cell("resnet8" if alone else tiny.PAIR, method)
    images = load_images(cell.spec.dataset)
    few = replace(images, test_images=images.test_images[:20], test_labels=images.test_labels[:20])
    teacher = None if alone else LiveTeacher(teacher_network().to(kind))
    execution = choose_execution("cpu", 1).model_copy(update=options)
    return Training(cell.run(0), DeviceDataset(few, CPU), teacher, execution, division)


def teacher_network() -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_model("resnet8", 10).eval().requires_grad_(False)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("method", "changes"), CASES)
def test_a_resumed_run_has_the_same_bits(method: str, changes: dict[str, Any]) -> None:
    whole, half = training_of(method, changes), training_of(method, changes)
    train(half, 2)
    resumed = training_of(method, changes)
    resumed.load_state(half.state())
    assert_same_bits(train(whole, STEPS), train(resumed, STEPS))


@pytest.mark.parametrize(("method", "changes"), CASES)
def test_recorded_steps_have_the_same_bits(
    method: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = train(training_of(method, changes), STEPS)
    training = training_of(method, changes)
    recorder = emulate_recording(training, monkeypatch)
    assert_same_bits(eager, train(training, STEPS))
    assert len(recorder.epochs) == 2  # a whole batch, and the last one


@pytest.mark.parametrize(("method", "changes"), CASES)
def test_fast_steps_are_plain_ones(double: None, method: str, changes: dict[str, Any]) -> None:
    fast, plain = (train(training_of(method, changes, step=step), 2) for step in ("fast", "plain"))
    assert fast.keys() == plain.keys()
    for name, value in fast.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize(
    ("method", "changes"), [("student", TRIVIAL_MIXUP), ("skd", RAND_CUTMIX), ("kd", RAND_CUTMIX)]
)
def test_a_divided_batch_is_mixed_and_trained_alike(
    double: None, method: str, changes: dict[str, Any]
) -> None:
    recipe = {**changes, **GROUPS}
    whole = training_of(method, recipe)
    parts = training_of(method, recipe, BatchPartition(accumulate=4))
    expected, actual = train(whole, 3), train(parts, 3)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_a_strong_view_is_not_divided_where_its_loss_compares_images() -> None:
    with pytest.raises(DivisionError, match="mlkd_two_views compares the images"):
        training_of("mlkd_two_views", GROUPS, BatchPartition(accumulate=4))


def test_the_mixed_batch_has_both_classes_and_its_share() -> None:
    training = training_of("student", {"mixing": "mixup"})
    training.prepare()
    inputs = training.training_step.inputs
    inputs.load_next()
    mixed = inputs.batch(range(32))
    plain = training_of("student", {})
    plain.prepare()
    plain.training_step.inputs.load_next()
    batch = plain.training_step.inputs.batch(range(32))
    partners = inputs._mixing.partners[:32]
    share = inputs._mixing.shares[0].float()
    assert torch.equal(mixed.target, batch.target)
    assert torch.equal(mixed.second_target, batch.target[partners])
    assert (mixed.mix == share).all()
    expected = share * batch.images + (1 - share) * batch.images[partners]
    torch.testing.assert_close(mixed.images, expected)
    assert (batch.second_target, batch.mix, batch.strong) == (None, None, None)


def test_training_accuracy_counts_the_class_with_the_larger_share() -> None:
    target, second = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    assert main_target(target, None, None) is target
    share = torch.tensor([0.7, 0.5, 0.2])
    assert main_target(target, second, share).tolist() == [0, 1, 5]
    training = training_of("student", {"mixing": "mixup"})
    training.prepare()
    training.training_step.inputs._mixing.shares.zero_()  # only the second images are seen
    inputs = training.training_step.inputs
    inputs.load_next()
    batch = inputs.batch(range(32))
    logits = training.student(batch.images)  # in training mode, as the step computes them
    training.training_step.run(32, training._new_draws())
    hits = (logits.argmax(1) == batch.second_target).sum().item()
    assert training.sums["hits"].item() == hits


def test_a_strong_view_is_a_second_pass_with_its_own_statistics() -> None:
    training = training_of("mlkd_two_views", {})
    twin = training_of("mlkd_two_views", {})
    seen = {}
    objective = training.objective
    objective.register_forward_pre_hook(lambda _, arguments: seen.update(batch=arguments[0]))
    training.advance()
    batch = seen["batch"]
    inputs = twin.training_step.inputs
    twin.prepare()
    inputs.load_next()
    images = inputs.batch(range(32))
    weak = twin.student.forward_features(images.images)
    strong = twin.student.forward_features(images.strong)
    torch.testing.assert_close(batch.student.logits, weak.logits)
    torch.testing.assert_close(batch.strong.student.logits, strong.logits)
    teacher = teacher_network()
    torch.testing.assert_close(batch.teacher.logits, teacher(images.images))
    torch.testing.assert_close(batch.strong.teacher.logits, teacher(images.strong))
    assert not torch.equal(images.images, images.strong)
    for name, buffer in twin.student.named_buffers():  # two batches, one after the other
        torch.testing.assert_close(training.student.get_buffer(name), buffer, msg=name)
    assert int(training.student.bn1.num_batches_tracked) == 2


@pytest.mark.parametrize("changes", [TRIVIAL_MIXUP, {"mixing": "cutmix"}])
def test_stored_views_of_the_teacher_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = tiny.study(recipe={**RECIPE, **changes}, methods=["kd"]).cell(tiny.PAIR, "kd").run(0)
    request = TeacherRequest(spec, StoreEntry(tmp_path))
    assert request.choose(None, CPU) == request.choose("live", CPU) == "live"
    with pytest.raises(TeacherViewsError, match=r"stored views of the teacher would be wrong; use"):
        request.choose("float16", CPU)


def test_a_strong_view_has_a_live_teacher(tmp_path: Path) -> None:
    study = tiny.study(recipe=RECIPE, methods=["mlkd_two_views"])
    spec = study.cell(tiny.PAIR, "mlkd_two_views").run(0)
    assert TeacherRequest(spec, StoreEntry(tmp_path)).choose(None, CPU) == "live"


def test_compiled_passes_keep_the_gradients_of_both_views() -> None:
    training = training_of("mlkd_two_views", {}, compiled=True)
    masks = []

    def compile_network(network: FeatureNetwork, mask: tuple[bool, ...]) -> Any:
        masks.append(mask)
        return network.forward_features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skd.training.step.compile_network", compile_network)
        compiled = train(training, 2)
    assert masks[0][0]  # the logits
    assert_same_bits(train(training_of("mlkd_two_views", {}), 2), compiled)


def test_half_precision_trains_all_of_it() -> None:
    for method, changes in CASES:
        state = train(training_of(method, changes, precision="bfloat16"), 2)
        assert all(value.isfinite().all() for value in state.values())
