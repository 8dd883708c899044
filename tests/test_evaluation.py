"""What is measured on test images, against numbers by hand and loops."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from skd.analysis import analyse, expected_calibration_error, measures
from skd.data import load as load_images
from skd.data.images import Images
from skd.data.views import ViewMaker
from skd.store import Store
from skd.training.evaluation import BATCH, Evaluator

CPU = torch.device("cpu")


def make_images(labels: list[int], classes: int) -> Images:
    shape = (len(labels), 3, 4, 4)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return Images(
        train_images=255 - pixels[:2],
        train_labels=torch.zeros(2, dtype=torch.int64),
        test_images=pixels,
        test_labels=torch.tensor(labels),
        classes=tuple(map(str, range(classes))),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
    )


def make_evaluator(labels: list[int], classes: int) -> Evaluator:
    images = make_images(labels, classes)
    return Evaluator(images, ViewMaker(images, CPU))


def make_model(classes: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())
        model.append(nn.Linear(48, classes))
    model[0].running_mean = torch.tensor([0.3, -0.2, 0.1])
    model[0].running_var = torch.tensor([0.5, 2.0, 1.5])
    return model


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = top + math.log(math.fsum(math.exp(x - top) for x in row))
    return [x - total for x in row]


def nll(rows: list[list[float]], labels: list[int]) -> float:
    return -sum(log_softmax(row)[y] for row, y in zip(rows, labels, strict=True)) / len(rows)


def test_scores_by_hand():
    rows = torch.tensor(
        [
            [6, 5, 4, 3, 2, 1, 0],  # label 0: first
            [6, 5, 4, 3, 2, 1, 0],  # label 4: fifth
            [6, 5, 4, 3, 2, 1, 0],  # label 5: sixth
            [0, 1, 2, 3, 4, 5, 6],  # label 6: first
            [0, 1, 2, 3, 4, 5, 6],  # label 0: last
            [9, 0, 0, 0, 0, 0, 8],  # label 6: second
            [0, 9, 0, 0, 0, 0, 0],  # label 1: first
            [-1, -2, -3, -9, -9, -9, -9],  # label 2: third
        ],
        dtype=torch.float32,
    )
    labels = [0, 4, 5, 6, 0, 6, 1, 2]
    scores = make_evaluator(labels, 7).scores(rows)
    assert scores.top1 == 37.5
    assert scores.top5 == 75.0
    assert scores.loss == pytest.approx(nll(rows.tolist(), labels), rel=1e-12)


@pytest.mark.parametrize(("classes", "top5"), [(3, 100.0), (5, 100.0), (6, 0.0)])
def test_top5_with_few_classes_is_over_all_of_them(classes, top5):
    rows = torch.arange(classes, 0, -1).float().repeat(4, 1)
    scores = make_evaluator([classes - 1] * 4, classes).scores(rows)  # the label comes last
    assert (scores.top1, scores.top5) == (0.0, top5)


def test_loss_of_extreme_logits_is_exact():
    rows = torch.tensor([[100.0, -100.0], [100.0, -100.0], [1e4, 0.0]])
    scores = make_evaluator([0, 1, 1], 2).scores(rows)
    assert scores.loss == pytest.approx((200 + 1e4) / 3, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_in_order_in_evaluation_mode_and_leave_the_model_alone(training):
    count = BATCH + 3
    images = make_images([i % 5 for i in range(count)], 5)
    model = make_model(5).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = Evaluator(images, ViewMaker(images, CPU)).logits(model)
    assert [module.training for module in model.modules()] == [training] * 5
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert logits.shape == (count, 5)
    assert not logits.requires_grad

    # By hand, in float64: scale, normalise, BatchNorm by its running statistics, one layer.
    def per_channel(values: Tensor) -> Tensor:
        return values.double().view(1, 3, 1, 1)

    norm, last = model[0], model[3]
    x = images.test_images.double() / 255
    x = (x - per_channel(torch.tensor(images.mean))) / per_channel(torch.tensor(images.std))
    spread = (norm.running_var.double() + norm.eps).sqrt()
    x = (x - per_channel(norm.running_mean)) / per_channel(spread)
    expected = x.flatten(1) @ last.weight.double().T + last.bias.double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)


# Analyses of stored logits.


def ece_reference(rows: list[list[float]], labels: list[int]) -> float:
    """Guo et al. 2017: sum over bins of |B|/n · |accuracy - confidence|, in percent."""
    total = 0.0
    probabilities = [[math.exp(x) for x in log_softmax(row)] for row in rows]
    for m in range(1, 16):
        inside = [
            (max(p), p.index(max(p)) == y)
            for p, y in zip(probabilities, labels, strict=True)
            if (m - 1) / 15 < max(p) <= m / 15
        ]
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(accuracy - confidence)
    return 100 * total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(2, 8), st.floats(0.1, 10))
def test_measures_are_the_loops(seed, count, classes, scale):
    random = np.random.default_rng(seed)
    logits, teacher = random.normal(0, scale, (2, count, classes))
    labels = random.integers(0, classes, count)
    seen = measures(logits, labels, teacher)
    rows, truth = logits.tolist(), labels.tolist()
    said = [row.index(max(row)) for row in rows]
    by_teacher = [row.index(max(row)) for row in teacher.tolist()]
    hits = [a == y for a, y in zip(said, truth, strict=True)]
    assert set(seen) == {"top1", "nll", "ece", "agreement", "per_class_top1"}
    assert seen["top1"] == pytest.approx(100 * sum(hits) / count)
    assert seen["nll"] == pytest.approx(nll(rows, truth), rel=1e-9)
    assert seen["ece"] == pytest.approx(ece_reference(rows, truth), rel=1e-9, abs=1e-9)
    same = sum(a == b for a, b in zip(said, by_teacher, strict=True))
    assert seen["agreement"] == pytest.approx(100 * same / count)
    for c in range(classes):
        of_class = [hit for hit, y in zip(hits, truth, strict=True) if y == c]
        if of_class:
            assert seen["per_class_top1"][c] == pytest.approx(100 * sum(of_class) / len(of_class))
        else:
            assert seen["per_class_top1"][c] is None
    json.dumps(seen, allow_nan=False)


def test_an_empty_class_and_a_missing_teacher_are_none():
    logits = np.array([[3.0, 0, 0], [3.0, 0, 0], [0, 0, 3.0]])
    seen = measures(logits, np.array([0, 2, 2]), None)
    assert seen["per_class_top1"] == [100, None, 50]
    assert seen["agreement"] is None
    assert seen["top1"] == pytest.approx(200 / 3)


def test_calibration_error_by_hand():
    certain = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert expected_calibration_error(certain, np.array([0, 0])) == 0
    assert expected_calibration_error(certain, np.array([1, 1])) == 100
    assert expected_calibration_error(certain, np.array([0, 1])) == 50
    # Bins are closed on the right: 0.2 = 3/15 is in the third, 0.21 in the fourth.
    spread = np.array([[0.2] * 5, [0.21, 0.2, 0.2, 0.2, 0.19]])
    error = expected_calibration_error(spread, np.array([0, 1]))
    assert error == pytest.approx(100 * (0.8 + 0.21) / 2)
    # Within one bin a hit and a miss cancel.
    close = np.array([[0.55, 0.45], [0.58, 0.42]])
    assert expected_calibration_error(close, np.array([0, 1])) == pytest.approx(100 * 0.13 / 2)


def test_analysis_skips_and_names_a_run_whose_logits_cannot_be_read(tmp_path):
    expansion = tiny.study(methods=["student"])
    records = [tiny.run(expansion, tmp_path, "student", seed=seed) for seed in (0, 1)]
    store = Store(tmp_path)
    store.run(records[1].id).logits_path.write_bytes(b"damaged")
    labels = load_images(expansion.dataset).test_labels.numpy()
    found = analyse(expansion, store, labels)
    assert found["skipped"] == [records[1].id]
    assert found["runs"].keys() == {records[0].id}
    assert found["runs"][records[0].id]["top1"] == pytest.approx(records[0].last.top1)
