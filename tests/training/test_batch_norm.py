"""BatchNorm over groups of fixed size: against the formula, however a batch is divided."""

import pytest
import torch
from torch import Tensor, nn

from skd.models import build_model
from skd.training.batch_norm import (
    GroupedBatchNorm2d,
    update_running_stats,
    use_grouped_batch_norms,
)
from skd.training.distributed import SingleProcess


def layer_of(group: int, channels: int = 3) -> GroupedBatchNorm2d:
    plain = nn.BatchNorm2d(channels).double()
    generator = torch.Generator().manual_seed(1)
    for tensor in (plain.weight.data, plain.bias.data, plain.running_mean, plain.running_var):
        tensor.copy_(torch.rand(channels, generator=generator) + 0.5)
    return GroupedBatchNorm2d(plain, group)


def maps(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 4, 5, dtype=torch.float64, generator=generator)


def by_the_formula(x: Tensor, layer: nn.BatchNorm2d, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs, and the mean over images of their group's mean and unbiased variance."""
    outputs, means, variances = [], [], []
    for start in range(0, len(x), group):
        part = x[start : start + group]
        flat = part.transpose(0, 1).reshape(x.shape[1], -1)
        mean, variance = flat.mean(dim=1), flat.var(dim=1, correction=0)
        scale = layer.weight.detach() / (variance + layer.eps).sqrt()
        shift = layer.bias.detach() - mean * scale
        outputs.append(part * scale[None, :, None, None] + shift[None, :, None, None])
        means += [mean] * len(part)
        variances += [variance * flat.shape[1] / (flat.shape[1] - 1)] * len(part)
    return torch.cat(outputs), torch.stack(means).mean(0), torch.stack(variances).mean(0)


@pytest.mark.parametrize(("count", "group"), [(12, 4), (12, 12), (11, 4), (3, 4)])
def test_outputs_and_running_statistics_are_the_groups(count: int, group: int) -> None:
    layer, x = layer_of(group), maps(count)
    before = layer.running_mean.clone(), layer.running_var.clone()
    outputs, mean, variance = by_the_formula(x, layer, group)
    torch.testing.assert_close(layer(x), outputs)
    assert torch.equal(layer.running_mean, before[0])  # not before the step ends
    update_running_stats([layer], SingleProcess())
    torch.testing.assert_close(layer.running_mean, 0.9 * before[0] + 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 * before[1] + 0.1 * variance)
    assert layer.num_batches_tracked == 1


def test_a_divided_batch_is_the_whole_one() -> None:
    whole, parts, x = layer_of(4), layer_of(4), maps(16).requires_grad_()
    outputs = whole(x)
    torch.testing.assert_close(torch.cat([parts(part) for part in x.split(8)]), outputs)
    for layer in (whole, parts):
        update_running_stats([layer], SingleProcess())
    torch.testing.assert_close(parts.running_mean, whole.running_mean)
    torch.testing.assert_close(parts.running_var, whole.running_var)
    # Each step starts new sums.
    for layer in (whole, parts):
        layer(maps(4, seed=2))
        update_running_stats([layer], SingleProcess())
    torch.testing.assert_close(parts.running_mean, whole.running_mean)


def test_an_image_sees_its_group_alone() -> None:
    layer, x = layer_of(4), maps(8).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[:4].pow(3).sum(), x)
    assert gradient[:4].abs().min() > 0
    assert not gradient[4:].any()


def test_evaluation_is_batch_norms() -> None:
    layer, x = layer_of(4).eval(), maps(6)
    plain = nn.BatchNorm2d(3).double().eval()
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))


def test_a_layer_that_saw_nothing_stays() -> None:
    layer = layer_of(4)
    before = layer.running_mean.clone()
    update_running_stats([layer], SingleProcess())
    assert torch.equal(layer.running_mean, before)
    assert layer.num_batches_tracked == 0


def test_a_network_keeps_its_parameters_and_keys() -> None:
    network = build_model("resnet8", 10)
    keys, parameters = list(network.state_dict()), list(network.parameters())
    layers = use_grouped_batch_norms(network, 16)
    assert list(network.state_dict()) == keys
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert len(layers) == sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert all(layer.training for layer in layers)
