"""The field's common loop, as `skd bench` runs it: its numbers are those of the formulas."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import transforms

from benchmarks.cases import BenchmarkCase, SideOptions, select_cases
from benchmarks.sides.gathered_crd import BatchWithNegatives, GatheredCRD
from benchmarks.sides.pil_dataset import PILDataset, PILDatasetWithNegatives, train_loader
from benchmarks.sides.plain_loop import PlainLoop
from benchmarks.sides.side_base import peak_with_workers
from benchmarks.sides.teacher import RANDOM, STORED, build_teacher
from skd.data import load_dataset
from skd.data.images import Images
from skd.losses.objective import Objective
from skd.losses.term import Alone, Batch, TermContext
from skd.randomness import Draws, seeded
from skd.store.store import Store
from skd.training.environment import peak_memory
from skd.training.teacher_setup import train_teacher
from tests.builders import tiny
from tests.builders.losses import draw, make_batch, make_outputs, make_term

CPU = torch.device("cpu")
METHODS = ["student", "kd", "skd", "crd", "skd+crd"]
PAIR = {"teacher": "teacher", "student": "resnet8", "settings": {"crd": {"negatives": 20}}}


def case_of(method: str) -> BenchmarkCase:
    return select_cases(tiny.study(methods=METHODS, pairs=[PAIR]), methods=[method])[0]


def options(results: Path) -> SideOptions:
    return SideOptions(device="cpu", threads=1, workers=0, results=results)


def make_loop(method: str, results: Path) -> tuple[PlainLoop, Images]:
    case = case_of(method)
    images = load_dataset(case.spec.dataset)
    teacher, _ = build_teacher(case, options(results), images, CPU)
    return PlainLoop(case.spec, images, teacher, CPU, workers=0), images


# A step.


def test_a_step_of_kd_is_the_formulas(tmp_path: Path) -> None:
    loop, _ = make_loop("kd", tmp_path)
    views, target, indices = loop._next_batch()
    student, recipe = copy.deepcopy(loop.student), loop.spec.recipe
    logits, goal = student(views), loop.teacher(views)
    loss = 0.1 * F.cross_entropy(logits, target)
    softened = F.softmax(goal / 4, dim=1)
    divergence = (softened * (softened.log() - F.log_softmax(logits / 4, dim=1))).sum() / len(goal)
    loss = loss + 0.9 * 16 * divergence
    loss.backward()
    loop._batches = iter([(views, target, indices)])
    loop.step()
    assert loop.meters["loss"].mean == pytest.approx(loss.item(), rel=1e-5)
    hits = (logits.argmax(dim=1) == target).double().mean().item()
    assert loop.meters["top1"].mean == pytest.approx(100 * hits)
    assert loop.meters["top5"].mean >= loop.meters["top1"].mean
    for own, other in zip(loop.student.parameters(), student.parameters(), strict=True):
        step = other.grad + recipe.weight_decay * other  # the first step: the momentum is zero
        torch.testing.assert_close(own, other - recipe.learning_rate * step)


@pytest.mark.parametrize("method", ["student", "kd", "skd"])
def test_losses_and_gradients_are_our_objectives(method: str, tmp_path: Path) -> None:
    loop, images = make_loop(method, tmp_path)
    views, target, indices = loop._next_batch()
    student = copy.deepcopy(loop.student)
    with torch.no_grad():
        taught = loop.teacher.forward_features(views) if loop.teacher else None
        example = copy.deepcopy(student).eval().forward_features(views)
    context = TermContext(images.num_classes, images.train_labels, 0, example, taught)
    objective = Objective(loop.spec.method, context)
    objective.load_state_dict(loop.objective.state_dict())
    objective.begin_epoch(1)
    outputs = student.forward_features(views)
    total = objective(Batch(outputs, taught, target, indices, 1, Draws(0))).total
    total.backward()
    own, logits = loop.losses(views, target, indices)
    own.backward()
    torch.testing.assert_close(own, total)
    torch.testing.assert_close(logits, outputs.logits)
    for one, other in zip(loop.student.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("method", ["crd", "skd+crd"])
def test_crd_trains_by_gathered_negatives(method: str, tmp_path: Path) -> None:
    loop, _ = make_loop(method, tmp_path)
    term = loop.objective.terms["crd"]
    assert isinstance(term, GatheredCRD)
    before = copy.deepcopy(loop.objective.state_dict())
    loop.step()
    after = loop.objective.state_dict()
    for name in ("embed_student.weight", "embed_teacher.weight", "teacher_bank", "student_bank"):
        assert not torch.equal(before[f"terms.crd.{name}"], after[f"terms.crd.{name}"]), name
    assert math.isfinite(loop.meters["loss"].mean)
    assert set(term.normalisers) == {"student", "teacher"}
    trained = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in [*term.parameters(), *loop.student.parameters()]} <= trained


def test_epochs_follow_each_other_and_the_last_batch_is_kept(tmp_path: Path) -> None:
    loop, _ = make_loop("student", tmp_path)
    for _ in range(3):  # of 80 images: 64, 16, 64
        loop.step()
    assert (loop.epoch, loop.steps, loop.meters["loss"].count) == (2, 3, 144)
    assert loop.describe()["teacher"] == "none"


def test_an_evaluation_sees_all_test_images_and_leaves_training_alone(tmp_path: Path) -> None:
    loop, images = make_loop("kd", tmp_path)
    loop.evaluate()
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (images.mean, images.std))
    with torch.no_grad():
        logits = loop.student.eval()((images.test_images / 255 - mean) / std)
    best = logits.topk(5, dim=1).indices == images.test_labels[:, None]
    assert loop.tested["top1"] == pytest.approx(100 * best[:, 0].double().mean().item())
    assert loop.tested["top5"] == pytest.approx(100 * best.any(dim=1).double().mean().item())
    loss = F.cross_entropy(logits, images.test_labels).item()
    assert loop.tested["loss"] == pytest.approx(loss, rel=1e-5)
    loop.step()
    assert loop.student.training
    assert not loop.teacher.training


# Its teacher and its memory.


def test_the_stores_teacher_is_used_where_there_is_one(tmp_path: Path) -> None:
    case = case_of("kd")
    images = load_dataset(case.spec.dataset)
    made_up, origin = build_teacher(case, options(tmp_path), images, CPU)
    assert origin == RANDOM
    assert not made_up.training
    assert not any(parameter.requires_grad for parameter in made_up.parameters())
    with torch.no_grad():
        logits = made_up((images.train_images[:64] / 255 - 0.306) / 0.319)
    assert 1e-3 < logits.std() < 1e3
    train_teacher(
        tiny.study().teachers[0].spec, Store(tmp_path).teacher(case.teacher_id), tiny.options(), "t"
    )
    stored, origin = build_teacher(case, options(tmp_path), images, CPU)
    assert origin == STORED
    assert not torch.equal(next(stored.parameters()), next(made_up.parameters()))
    assert build_teacher(case_of("student"), options(tmp_path), images, CPU) == (None, None)


def test_memory_counts_the_loaders_workers() -> None:
    images = load_dataset(case_of("kd").spec.dataset)
    batches = iter(train_loader(images, 16, workers=1, pin=False))
    next(batches)
    alone = peak_memory(CPU)
    assert alone + 2**20 < peak_with_workers(CPU) < 2 * alone
    del batches


# Its images.


def test_pictures_are_crops_of_the_padded_image(tmp_path: Path) -> None:
    loop, images = make_loop("student", tmp_path)
    views, target, indices = loop._next_batch()
    size, pad = images.train_images.shape[-1], images.pad
    padded = F.pad(images.train_images, [pad] * 4)
    offsets, drawn = range(2 * pad + 1), set()
    for view, label, index in zip(views, target, indices, strict=True):
        assert label == images.train_labels[index]
        pixels = view * torch.tensor(images.std)[:, None, None]
        pixels = ((pixels + torch.tensor(images.mean)[:, None, None]) * 255).round()
        places = [
            (row, column)
            for row in offsets
            for column in offsets
            if torch.equal(pixels, padded[index, :, row : row + size, column : column + size] * 1.0)
        ]
        assert places, "no crop of it"
        drawn |= {*places}
    assert len(drawn) > 10  # the offsets vary


def test_negatives_are_of_other_classes() -> None:
    labels = torch.arange(40) % 4
    pixels = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    item = transforms.Compose([transforms.ToTensor()])
    image, label, index, drawn = PILDatasetWithNegatives(pixels, labels, item, negatives=30)[6]
    assert (image.shape, label, index) == ((3, 8, 8), 2, 6)
    # All thirty images, each once.
    assert sorted(drawn) == [place for place in range(40) if place % 4 != 2]
    *_, drawn = PILDatasetWithNegatives(pixels, labels, item, negatives=500)[6]
    assert len(drawn) == 500
    assert all(labels[drawn] != 2)


@pytest.mark.slow
def test_pictures_are_torchvisions(cifar_root: Path) -> None:
    from torchvision.datasets import CIFAR100

    from skd.data.cifar100 import load as load_cifar

    item = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
        ]
    )
    theirs = CIFAR100(cifar_root, train=True, transform=item)
    images = load_cifar(cifar_root)
    ours = train_loader(images, 64, workers=0, pin=False).dataset
    assert isinstance(ours, PILDataset)
    assert len(ours) == len(theirs) == 50_000
    for index in (0, 1, 49_999):
        pairs = []
        for pictures in (ours, theirs):
            torch.manual_seed(index)
            pairs.append(pictures[index][:2])
        assert pairs[0][1] == pairs[1][1]
        assert torch.equal(pairs[0][0], pairs[1][0])


# CRD by gathered entries.

COUNT, CLASSES, IMAGES = 4, 5, 50


def gathered(**settings: object) -> tuple[GatheredCRD, BatchWithNegatives, torch.nn.Module]:
    """Return a term, a batch, and the product's own term with the same weights and banks."""
    student, teacher = make_outputs(1, COUNT, width=7), make_outputs(2, COUNT, width=9)
    own = make_term("crd", student, teacher, negatives=6, width=3, **settings)
    labels = torch.arange(IMAGES) % CLASSES
    context = TermContext(CLASSES, labels, 0, student, teacher)
    with seeded(0, "crd"):
        term = GatheredCRD(own.settings, context).double()
    target, indices = torch.tensor([0, 3, 1, 3]), torch.tensor([10, 33, 21, 8])
    others = [np.flatnonzero(labels != label) for label in target]
    picks = np.random.default_rng(0)
    negatives = np.stack([picks.choice(places, 6, replace=False) for places in others])
    batch = make_batch(student, teacher, target, indices=indices)
    return term, BatchWithNegatives(**vars(batch), negatives=torch.from_numpy(negatives)), own


def reference(term: GatheredCRD, batch: BatchWithNegatives) -> Tensor:
    """The paper's eq. 18 in float64, by loops over anchors and negatives; c = K/N."""
    noise = 6 / IMAGES
    total = torch.zeros((), dtype=torch.float64)
    for layer, features, bank in (
        (term.embed_student, batch.student.pooled, term.teacher_bank.clone()),
        (term.embed_teacher, batch.teacher.pooled, term.student_bank.clone()),
    ):
        embedded = features @ layer.weight.T + layer.bias
        anchors = embedded / embedded.square().sum(dim=1, keepdim=True).sqrt()
        scores = [
            [
                (anchor @ bank[place] / 0.07).exp()
                for place in [int(batch.indices[row]), *batch.negatives[row].tolist()]
            ]
            for row, anchor in enumerate(anchors)
        ]
        z = IMAGES * np.mean([[score.item() for score in row] for row in scores])
        for first, *others in scores:
            total = total - (first / z / (first / z + noise)).log()
            for score in others:
                total = total - (noise / (score / z + noise)).log()
    return total / COUNT


def test_gathered_crd_follows_the_formula() -> None:
    term, batch, _ = gathered()
    leaves = [batch.student.pooled, batch.teacher.pooled, *term.parameters()]
    expected = reference(term, batch)
    slopes = torch.autograd.grad(expected, leaves)
    loss = term(batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for own, other in zip(torch.autograd.grad(loss, leaves), slopes, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_gathered_crd_is_the_products_for_the_same_negatives() -> None:
    term, batch, own = gathered()
    for layer in ("embed_student", "embed_teacher"):
        torch.testing.assert_close(getattr(term, layer).weight, getattr(own, layer).weight)
    for step in range(3):  # the first step's normalisers stay, the banks move
        drawn = torch.zeros(COUNT, IMAGES, dtype=torch.bool).scatter_(1, batch.negatives, True)
        own.draw = lambda *_, drawn=drawn: drawn
        torch.testing.assert_close(term(batch), own(batch))
        own.after_step(Alone())
        torch.testing.assert_close(term.student_bank, own.student_bank)
        torch.testing.assert_close(term.teacher_bank, own.teacher_bank)
        student = replace(batch.student, pooled=draw(step, batch.student.pooled.shape))
        batch = replace(batch, student=student)
