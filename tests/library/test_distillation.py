"""A method's losses in a plain loop: values, what they change, what they refuse."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from skd import library
from skd.models.step_dropout import StepDropout

CLASSES, COUNT = 10, 12
LABELS = torch.arange(24) % CLASSES


def images(count: int = COUNT, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def suite_network(name: str = "resnet8", seed: int = 0) -> library.FeatureNetwork:
    torch.manual_seed(seed)
    return library.network(name, CLASSES)


def plain_network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return torchvision.models.mobilenet_v3_small(num_classes=CLASSES)


def build(method: Any = "skd+kd", **changes: Any) -> library.Distillation:
    for role, make in (("student", plain_network), ("teacher", suite_network)):
        if role not in changes:
            changes[role] = make()
    return library.objective(method, **{"num_classes": CLASSES, **changes})


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_the_total_is_the_formula() -> None:
    # A new simplifier does not change softmax(z/T), so both KD terms have the same value.
    student = plain_network().eval()
    distillation = build(student=student)
    distillation.begin_epoch(1)
    losses = distillation(images(), LABELS[:COUNT])
    z = student(images()).detach().double()
    t = distillation.teacher(images()).double()
    p, log_q = (t / 4).softmax(1), (z / 4).log_softmax(1)
    kd = 16 * (p * (p.log() - log_q)).sum(1).mean()
    ce = -z.log_softmax(1)[torch.arange(COUNT), LABELS[:COUNT]].mean()
    assert losses.total.item() == pytest.approx((0.1 * ce + 2 * 0.9 * kd).item(), rel=1e-4)
    assert [*losses.parts] == ["cross_entropy", "kd on simplified", "kd"]
    assert torch.equal(losses.student.logits, distillation.predict(images()))


def test_outputs_of_the_caller_give_the_same_losses() -> None:
    student = plain_network().eval()
    distillation = build(student=student)
    distillation.begin_epoch(1)
    total = distillation(images(), LABELS[:COUNT]).total
    outputs = student(images()), distillation.teacher(images())
    again = distillation.losses(*outputs, LABELS[:COUNT]).total
    assert total.item() == again.item()


def test_gradients_reach_the_student_and_the_methods_modules_only() -> None:
    teacher = suite_network()
    before = state(teacher)
    distillation = build(teacher=teacher)
    distillation.begin_epoch(1)
    distillation(images(), LABELS[:COUNT]).total.backward()
    assert equal(before, state(teacher))
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in distillation.student.parameters())
    assert all(parameter.grad is not None for parameter in distillation.parameters())
    own = {name.split(".")[1] for name, _ in distillation.named_parameters()}
    assert own == {"simplifier"}


def test_building_leaves_the_student_and_the_generator_as_they_are() -> None:
    student, teacher = plain_network(), suite_network()
    student.features[0].eval()  # its user may have frozen a part
    before, modes = state(student), [module.training for module in student.modules()]
    generator = torch.get_rng_state()
    build(student=student, teacher=teacher)
    assert equal(before, state(student))
    assert modes == [module.training for module in student.modules()]
    assert torch.equal(generator, torch.get_rng_state())


def test_groups_have_the_factors_of_their_parts() -> None:
    (group,) = build(
        "skd", settings={"simplifier": {"learning_rate_multiplier": 0.5}}
    ).parameter_groups(0.2)
    assert group["lr"] == pytest.approx(0.1)
    assert "weight_decay" not in group
    (group,) = build("skd", settings={"simplifier": {"weight_decay": 0.25}}).parameter_groups(0.2)
    assert group["weight_decay"] == 0.25
    assert build("kd").parameter_groups(0.2) == []


def test_a_warm_up_follows_the_epoch() -> None:
    distillation = build(
        "kd", settings={"kd": {"warmup_epochs": 4}}, student=plain_network().eval()
    )
    totals = []
    for epoch in (1, 2, 4, 5):
        distillation.begin_epoch(epoch)
        losses = distillation(images(), LABELS[:COUNT])
        rest = losses.total - 0.1 * losses.parts["cross_entropy"]
        totals.append((rest / losses.parts["kd"]).item())
    assert totals == pytest.approx([0.225, 0.45, 0.9, 0.9], rel=1e-4)


def crd(student: nn.Module) -> library.Distillation:
    settings = {"crd": {"negatives": 8, "width": 4}}
    return build("crd", student=student, train_labels=LABELS, settings=settings)


def train(distillation: library.Distillation, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    distillation.begin_epoch(epoch)
    for indices in torch.arange(24).roll(epoch).split(8):
        optimizer.zero_grad()
        distillation(images(24)[indices], LABELS[indices], indices).total.backward()
        optimizer.step()


def optimizer_of(distillation: library.Distillation) -> torch.optim.Optimizer:
    groups = [{"params": distillation.student.parameters()}, *distillation.parameter_groups(0.05)]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9)


def test_memory_moves_after_each_step_and_is_saved_with_it() -> None:
    distillation = crd(suite_network())
    optimizer = optimizer_of(distillation)
    name = "objective.terms.crd.student_bank"
    before = state(distillation)[name]
    distillation.begin_epoch(1)
    indices = torch.arange(8)
    distillation(images(8), LABELS[:8], indices).total.backward()
    optimizer.step()
    moved = (state(distillation)[name] != before).any(dim=1)
    assert moved.tolist() == [True] * 8 + [False] * 16
    distillation.eval()
    saved = state(distillation)
    distillation(images(8), LABELS[:8], indices)
    assert equal(saved, state(distillation))


def test_a_training_continues_from_an_epoch_to_the_same_bits() -> None:
    whole = crd(suite_network())
    optimizer = optimizer_of(whole)
    for epoch in (1, 2):
        train(whole, optimizer, epoch)
    first = crd(suite_network())
    optimizer = optimizer_of(first)
    train(first, optimizer, 1)
    saved = state(first.student), state(first), copy.deepcopy(optimizer.state_dict())
    second = crd(suite_network(seed=5))
    optimizer = optimizer_of(second)
    for part, content in zip((second.student, second, optimizer), saved, strict=True):
        part.load_state_dict(content)
    train(second, optimizer, 2)
    assert equal(state(whole), state(second))
    assert equal(state(whole.student), state(second.student))


def test_a_students_dropout_draws_from_the_step() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES), StepDropout(0.5))
    distillation = build("kd", student=student)
    drawn = []
    for epoch in (1, 1, 2):
        distillation.begin_epoch(epoch)
        drawn.append(distillation(images(), LABELS[:COUNT]).student.logits)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_method_of_two_views_reads_the_strong_one() -> None:
    distillation = build("mlkd_two_views")
    distillation.begin_epoch(1)
    with pytest.raises(library.UnfitError, match="a second, strong view of each image: give `str"):
        distillation(images(), LABELS[:COUNT])
    first, second = (
        distillation(images(), LABELS[:COUNT], strong=images(seed=seed)).total.item()
        for seed in (1, 2)
    )
    assert first != second


def test_mixed_images_count_by_their_shares() -> None:
    distillation = build("kd", student=plain_network().eval())
    distillation.begin_epoch(1)
    second, mix = LABELS[:COUNT].roll(1), torch.full((COUNT,), 0.3)
    losses = distillation(images(), LABELS[:COUNT], second_target=second, mix=mix)
    entropies = [
        nn.functional.cross_entropy(losses.student.logits, target)
        for target in (LABELS[:COUNT], second)
    ]
    expected = 0.3 * entropies[0] + 0.7 * entropies[1]
    torch.testing.assert_close(losses.parts["cross_entropy"], expected)
    with pytest.raises(library.UnfitError, match="need both `second_target` and `mix`"):
        distillation(images(), LABELS[:COUNT], mix=mix)
    distillation = build("dkd")
    distillation.begin_epoch(1)
    with pytest.raises(library.UnfitError, match="'dkd' reads one class an image"):
        distillation(images(), LABELS[:COUNT], second_target=second, mix=mix)


def test_stages_by_name_are_enough_for_methods_that_read_maps() -> None:
    stages = ["layer1", "layer2", "layer3"]
    networks = [
        library.with_features(torchvision.models.resnet18(num_classes=CLASSES), stages)
        for _ in range(2)
    ]
    distillation = build("at", student=networks[0], teacher=networks[1])
    distillation.begin_epoch(1)
    assert distillation(images(), LABELS[:COUNT]).total.isfinite()


class Pair(nn.Module):
    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return batch.mean((2, 3)), batch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "crd"}, "reads the labels of all training images: give train_labels"),
        (
            {"method": "crd", "train_labels": LABELS, "student": plain_network},
            "'crd' reads the pooled features of the student, and MobileNetV3 gives logits only",
        ),
        (
            {"method": "rkd", "student": plain_network},
            "'rkd' reads the pooled features of the student, and MobileNetV3 gives logits only",
        ),
        (
            {"method": "fitnet", "teacher": plain_network},
            "'fitnet' reads the feature maps of the teacher, and MobileNetV3 gives logits only",
        ),
        ({"teacher": lambda: None}, "'kd' learns from a teacher: give teacher="),
        ({"num_classes": 7}, "the student has 10 logits, and num_classes is 7"),
        (
            {"student": Pair},
            r"student Pair must return logits of shape \(2, C\), and returned tuple",
        ),
        ({"method": "kdd"}, r"unknown method 'kdd' \(did you mean 'kd'\?\); allowed: "),
        ({"method": {"terms": []}}, "method: terms: "),
        ({"settings": {"kd": {"t": 1}}}, "term kd: .*unknown key 't'"),
        ({"method": "sftn"}, "sftn trains a teacher to suit a student: it needs a partner"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(
    changes: dict[str, Any], message: str
) -> None:
    changes = {"method": "kd", "student": suite_network, **changes}
    for role in {"student", "teacher"} & changes.keys():
        changes[role] = changes[role]()
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_what_a_step_lacks_is_named() -> None:
    distillation = crd(suite_network())
    with pytest.raises(RuntimeError, match="begin_epoch"):
        distillation(images(), LABELS[:COUNT])
    with pytest.raises(ValueError, match="epochs start from 1"):
        distillation.begin_epoch(0)
    distillation.begin_epoch(1)
    with pytest.raises(library.UnfitError, match="reads the indices of the images: give `indices`"):
        distillation(images(), LABELS[:COUNT])


def test_a_teachers_method_takes_its_partner() -> None:
    distillation = build("sftn", student=suite_network("resnet14"), teacher=None, partner="resnet8")
    distillation.begin_epoch(1)
    distillation(images(), LABELS[:COUNT]).total.backward()
    assert [group["lr"] for group in distillation.parameter_groups(0.1)]


READS: list[Callable[[Any], Any]] = [
    lambda value: value.shape,
    lambda value: value[0],
    lambda value: len(value),
    lambda value: torch.cat([value]),
    lambda value: torch.ones(2) * value,
    lambda value: 2 * value,
    lambda value: torch.ones(3)[value],
    lambda value: bool(value),
    lambda value: [*value],
]


@pytest.mark.parametrize("read", READS)
def test_a_missing_value_says_so_however_it_is_read(read: Callable[[Any], Any]) -> None:
    from skd.library.networks import missing

    with pytest.raises(library.UnfitError, match="no maps"):
        read(missing("no maps"))


def test_loss_functions_are_found_by_name() -> None:
    from baselines.kd import kd_loss

    assert library.losses.kd_loss is kd_loss
    assert {"kd_loss", "dkd_loss", "rkd_angle_loss"} <= {*dir(library.losses)}
    with pytest.raises(AttributeError, match="did you mean 'dkd_loss'"):
        _ = library.losses.dkdd_loss
