"""Dropout from the step's own stream: its law, its independence, and what it leaves alone."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd.models.global_draws import drawing_layer
from skd.models.step_dropout import (
    StepDropout,
    UnseededDropoutError,
    draw_step_seeds,
    set_first_image,
)
from tests.builders.networks import Dropping, images, seeded


def layer(p: float = 0.3, per: str = "element", seed: int = 1) -> StepDropout:
    made = StepDropout(p, per)
    draw_step_seeds([made], torch.Generator().manual_seed(seed))
    return made


def dropped(made: StepDropout, shape: tuple[int, ...] = (64, 500)) -> Tensor:
    return (made(torch.ones(shape)) == 0).double()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_units_are_dropped_independently_with_probability_p(p: float) -> None:
    """Within five standard errors: the rate, and the correlations of neighbours and of steps."""
    made = StepDropout(p)
    generator = torch.Generator().manual_seed(1)
    draw_step_seeds([made], generator)
    first = dropped(made)
    draw_step_seeds([made], generator)
    second = dropped(made)
    error = 5 / math.sqrt(first.numel())
    assert first.mean().item() == pytest.approx(p, abs=error)
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        correlation = ((a - p) * (b - p)).mean() / (p * (1 - p))
        assert abs(correlation) < error / (p * (1 - p))
    # The rate of each column, over the images, spreads as a binomial's does.
    spread = first.mean(0).std().item()
    assert spread == pytest.approx(math.sqrt(p * (1 - p) / len(first)), rel=0.2)


def test_what_stays_is_scaled_and_gets_the_scaled_gradient() -> None:
    made, x = layer(0.25), torch.randn(8, 40, dtype=torch.float64, requires_grad=True)
    y = made(x)
    kept = (y != 0).double()
    torch.testing.assert_close(y, x * kept / 0.75)
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept / 0.75)


@pytest.mark.parametrize(("per", "units"), [("channel", 4 * 8), ("image", 4)])
def test_channels_or_images_are_dropped_whole(per: str, units: int) -> None:
    y = layer(0.5, per)(torch.ones(4, 8, 5, 5))
    whole = y.reshape(units, -1)
    assert ((whole == 0).all(1) | (whole == 2).all(1)).all()
    assert 0 < (whole == 0).all(1).sum() < units


@pytest.mark.parametrize("per", ["element", "channel", "image"])
def test_an_images_mask_depends_on_its_place_in_the_batch_only(per: str) -> None:
    made, x = layer(0.5, per), torch.randn(12, 4, 3, 3)
    whole = made(x)
    for first in (0, 4, 8):
        set_first_image([made], first)
        assert torch.equal(made(x[first : first + 4]), whole[first : first + 4])


def test_the_memory_format_changes_neither_mask_nor_layout() -> None:
    made, x = layer(), torch.randn(4, 8, 5, 5)
    last = made(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, made(x))


def test_evaluation_and_p_0_leave_the_input() -> None:
    x = torch.randn(4, 8)
    assert layer().eval()(x) is x
    assert StepDropout(0.0)(x) is x
    assert not StepDropout().state_dict()


def test_it_never_trains_without_a_seed() -> None:
    with pytest.raises(UnseededDropoutError, match="call draw_step_seeds"):
        StepDropout()(torch.ones(2, 2))


@pytest.mark.parametrize(("p", "per"), [(1.0, "element"), (-0.1, "element"), (0.5, "row")])
def test_bad_settings_are_refused(p: float, per: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        StepDropout(p, per)


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=self.training)


class LayerDrop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if random.random() < 0.5 else 2 * x


class NumpyNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + float(np.random.normal())


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (LayerDrop(), "drop.1 (LayerDrop)"),
        (NumpyNoise(), "drop.1 (NumpyNoise)"),
        (nn.Dropout(), "drop.1 (Dropout)"),
        (nn.Dropout2d(), "drop.1 (Dropout2d)"),
        (nn.RReLU(), "drop.1 (RReLU)"),
        (nn.AlphaDropout(), "drop.1 (AlphaDropout)"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.5), "drop.1 (FractionalMaxPool2d)"),
        (Functional(), "drop.1 (Functional)"),
        (nn.Dropout(0.0), None),
        (StepDropout(), None),
    ],
)
def test_the_layer_that_draws_is_named(inner: nn.Module, name: str | None) -> None:
    network = Dropping(nn.Sequential(nn.ReLU(), inner), 10)
    before, state = torch.get_rng_state(), network.body.bn1.running_mean.clone()
    assert drawing_layer(network, images(2, 16)) == name
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(network.body.bn1.running_mean, state)
    assert not any(module._forward_hooks for module in network.modules())


def test_the_networks_own_forward_is_named_too() -> None:
    class Noisy(Dropping):
        def forward_features(self, x: Tensor):
            return super().forward_features(x + torch.randn_like(x))

    assert drawing_layer(Noisy(nn.Identity(), 10), images(2, 16)) == "forward (Noisy)"
    assert drawing_layer(seeded("resnet8"), images(2, 16)) is None
