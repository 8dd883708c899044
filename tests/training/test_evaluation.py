"""Measures on test images, against numbers by hand and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skd.data.images import Images
from skd.data.views import TEST_BATCH, PixelViews
from skd.training.evaluation import Evaluator
from tests.builders.formulas import nll

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
    return Evaluator(images, PixelViews(images, CPU))


def make_model(classes: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())
        model.append(nn.Linear(48, classes))
    model[0].running_mean = torch.tensor([0.3, -0.2, 0.1])
    model[0].running_var = torch.tensor([0.5, 2.0, 1.5])
    return model


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
    count = TEST_BATCH["cpu"] + 3
    images = make_images([i % 5 for i in range(count)], 5)
    model = make_model(5).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = Evaluator(images, PixelViews(images, CPU)).logits(model)
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
