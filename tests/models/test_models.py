"""The networks: their shape against the reference table, their values against their definition."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skd.models import build_model, network_names
from skd.models.accounting import count_parameters, multiply_adds
from skd.models.layers import channel_shuffle
from skd.models.resnet import ResNet
from skd.models.wrn import WideResNet
from tests.builders.networks import by_formula, images, lived_in, seeded, wave

# fmt: off
LISTED = (
    "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet8x4", "resnet32x4",
    "ResNet50", "wrn_16_2", "wrn_40_1", "wrn_40_2", "vgg8", "vgg13",
    "MobileNetV2", "ShuffleV1", "ShuffleV2",
)


UNLISTED = ("resnet8", "resnet14", "wrn_16_1", "resnet18", "resnet34", "resnet50", "MobileNetV1")


# One or two small networks per family, for properties that depth and width do not change.
SAMPLE = (
    "resnet8", "resnet8x4", "ResNet50", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2",
)


# The second image's first three logits from RepDistiller's own classes (b84f547, in float64 and
# training mode), with the weights and images of `by_formula`.
REFERENCE_LOGITS = {
    "resnet20": (-2.434546526, 0.269802664, 2.832514341),
    "resnet8x4": (-2.125660015, 1.247811780, -0.985153444),
    "ResNet50": (-15.539834346, -3.757547121, 11.626622908),
    "wrn_16_1": (-0.452705963, 0.696017355, 1.405318941),
    "wrn_16_2": (-0.291672444, 2.165269074, 0.294526395),
    "vgg13": (-0.300271849, 0.667521114, 1.548299935),
    "MobileNetV2": (-0.856232173, -3.635869296, 6.239520033),
    "ShuffleV1": (-11.398205024, -11.306816772, -10.228837069),
    "ShuffleV2": (-0.922748691, 1.854164542, 4.188451016),
}
# fmt: on


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> dict[str, dict]:
    return json.loads((shared_dir / "reference" / "networks.json").read_text())


def test_all_listed_networks_exist(reference: dict[str, dict]) -> None:
    assert set(LISTED) == reference.keys()


def test_names_are_those_known_in_natural_order() -> None:
    names = network_names()
    assert set(names) >= {*LISTED, *UNLISTED}
    assert names.index("resnet8") < names.index("resnet20") < names.index("resnet110")


@pytest.mark.parametrize("name", LISTED)
def test_network_equals_the_reference_table(name: str, reference: dict[str, dict]) -> None:
    facts = reference[name]
    model = build_model(name).eval()
    shapes = [[key, list(tensor.shape)] for key, tensor in model.state_dict().items()]
    assert shapes == facts["state_dict"]
    assert count_parameters(model) == facts["parameters"]
    assert multiply_adds(model) == facts["multiply_adds"]
    with torch.no_grad():
        out = model.forward_features(images())
    assert [list(s.shape[1:]) for s in out.stages] == facts["stage_shapes"]
    raw = [list(p.shape[1:]) for p in out.preactivations]
    assert raw == facts["preactivation_stage_shapes"]
    assert out.pooled.shape == (2, facts["pooled_width"])
    assert out.logits.shape == (2, 100)


@torch.no_grad()
@pytest.mark.parametrize("name", REFERENCE_LOGITS)
def test_logits_equal_the_reference_code(name: str) -> None:
    logits = by_formula(build_model(name)).train()(wave(torch.Size((2, 3, 32, 32)), 0.37))
    assert logits[1, :3].tolist() == pytest.approx(REFERENCE_LOGITS[name], rel=1e-7)


def test_public_resnet56_checkpoint_loads(shared_dir: Path) -> None:
    path = shared_dir / "data" / "teachers" / "resnet56_cifar100.pth"
    if not path.exists():
        pytest.skip("the public ResNet-56 checkpoint is not here")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    build_model("resnet56").load_state_dict(weights, strict=True)


@pytest.mark.parametrize("name", network_names())
def test_features_come_with_the_plain_pass(name: str) -> None:
    plain, featured = seeded(name), seeded(name)
    x = images()
    with torch.no_grad():
        logits, out = plain(x), featured.forward_features(x)
    assert torch.equal(logits, out.logits)
    # The running statistics and the counter too: no BatchNorm ran twice.
    for (key, a), b in zip(plain.state_dict().items(), featured.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
        if key.endswith("num_batches_tracked"):
            assert b.item() == 1, key


@pytest.mark.parametrize("name", network_names())
def test_small_images_and_other_class_counts(name: str) -> None:
    out = seeded(name, num_classes=10).forward_features(images(size=16))
    assert out.logits.shape == (2, 10)
    assert torch.isfinite(out.logits).all()
    assert len(out.preactivations) in (0, len(out.stages))


@pytest.mark.parametrize("name", SAMPLE)
def test_gradient_reaches_every_parameter_and_feature(name: str) -> None:
    model = seeded(name)
    out = model.forward_features(images(4))
    for feature in (*out.stages, *out.preactivations, out.pooled):
        feature.retain_grad()
    out.logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    # WRN's raw stages, as all others' activated ones, are on the path to the logits.
    assert all(stage.grad.abs().sum() > 0 for stage in out.stages)
    assert all(raw.grad.abs().sum() > 0 for raw in out.preactivations)
    assert out.pooled.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet8x4", "ResNet50", "ShuffleV1"])
@pytest.mark.parametrize("train", [False, True])
def test_stage_is_activated_preactivation(name: str, train: bool) -> None:
    out = lived_in(name).train(train).forward_features(images())
    assert out.preactivations[0] is out.stages[0]
    for stage, raw in zip(out.stages[1:], out.preactivations[1:], strict=True):
        assert raw.min() < 0
        assert torch.equal(F.relu(raw), stage)


@torch.no_grad()
def test_vgg_by_hand() -> None:
    model, x = lived_in("vgg8").eval(), images()
    out = model.forward_features(x)
    maps = x
    for index in range(5):
        raw = getattr(model, f"block{index}")(maps)
        assert torch.equal(F.relu(raw), out.stages[index])
        assert torch.equal(raw if index else F.relu(raw), out.preactivations[index])
        maps = F.max_pool2d(F.relu(raw), 2) if index < 3 else F.relu(raw)
    torch.testing.assert_close(model.classifier(maps.mean((2, 3))), out.logits)


@torch.no_grad()
def test_vgg_pools_larger_images_once_more() -> None:
    sides = [s.shape[-1] for s in seeded("vgg8").forward_features(images(1, 64)).stages]
    assert sides == [64, 32, 16, 8, 4]


@torch.no_grad()
@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_16_2", "wrn_40_2"])
def test_wrn_preactivation_is_the_next_batchnorm_of_the_stage(name: str) -> None:
    model = lived_in(name).eval()
    out = model.forward_features(images())
    norms = (model.block2.layer[0].bn1, model.block3.layer[0].bn1, model.bn1)
    for norm, stage, raw in zip(norms, out.stages[1:], out.preactivations[1:], strict=True):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        by_hand = (stage - norm.running_mean[:, None, None]) * scale[:, None, None]
        torch.testing.assert_close(raw, by_hand + norm.bias[:, None, None])
    pooled = F.relu(out.preactivations[-1]).mean((2, 3))
    torch.testing.assert_close(out.pooled, pooled)
    assert torch.equal(out.stages[0], model.conv1(images()))


@torch.no_grad()
def test_shufflev2_stage_is_the_shuffled_activation() -> None:
    out = lived_in("ShuffleV2").eval().forward_features(images())
    for stage, raw in zip(out.stages[1:], out.preactivations[1:], strict=True):
        passed, computed = raw.chunk(2, dim=1)
        assert passed.min() >= 0 > computed.min()
        assert torch.equal(stage[:, 0::2], passed)
        assert torch.equal(stage[:, 1::2], F.relu(computed))


@torch.no_grad()
def test_mobilenetv2_stages_end_without_activation() -> None:
    model = lived_in("MobileNetV2").eval()
    out = model.forward_features(images())
    assert out.preactivations == ()
    assert out.stages[0].min() >= 0
    assert all(stage.min() < 0 for stage in out.stages[1:])
    torch.testing.assert_close(out.pooled, model.conv2(out.stages[-1]).mean((2, 3)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channel_shuffle_permutes_and_keeps_the_layout(layout: torch.memory_format) -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 3, 5).contiguous(memory_format=layout)
    shuffled = channel_shuffle(x, 3)
    assert shuffled[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert shuffled.shape == x.shape
    assert shuffled.is_contiguous(memory_format=layout)


@torch.no_grad()
@pytest.mark.parametrize("name", SAMPLE)
def test_channels_last_changes_no_value(name: str) -> None:
    model, x = lived_in(name).eval(), images()
    plain = model(x)
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    # Other kernels sum in another order, and untrained depth amplifies the differences.
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5 * plain.abs().max().item())


@pytest.mark.parametrize("name", SAMPLE)
def test_weights_follow_the_seed(name: str) -> None:
    first, same, other = (seeded(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", SAMPLE)
def test_initial_weights_follow_the_family(name: str) -> None:
    model = seeded(name)
    default = name.startswith("Shuffle")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2000:
            fan_out = math.prod(layer.kernel_size) * layer.out_channels
            # PyTorch's own draw is uniform with variance 1 / (3 fan_in).
            variance = 1 / (3 * layer.weight[0].numel()) if default else 2 / fan_out
            # Five standard errors of a normal sample's deviation.
            tolerance = 5 / math.sqrt(2 * layer.weight.numel())
            assert layer.weight.std().item() == pytest.approx(variance**0.5, rel=tolerance)
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            assert (layer.bias == 0).all()
    check_classifier(name, next(m for m in model.modules() if isinstance(m, nn.Linear)))


def check_classifier(name: str, classifier: nn.Linear) -> None:
    small = name.startswith(("vgg", "MobileNet"))
    std = 0.01 if small else (3 * classifier.in_features) ** -0.5
    assert classifier.weight.std().item() == pytest.approx(std, rel=0.06)
    assert (classifier.bias == 0).all() == (small or name.startswith("wrn"))


def test_accounting_leaves_the_model_as_it_was() -> None:
    model = seeded("resnet8").train()
    model.layer2.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    assert multiply_adds(model, (3, 16, 16)) < multiply_adds(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_accounting_counts_groups_once_and_no_biases() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 5)
    )
    model[0].weight.requires_grad_(False)
    assert multiply_adds(model, (4, 4, 4)) == 8 * 16 * 2 * 9 + 128 * 5
    assert count_parameters(model) == 8 * 2 * 9 + 8 + 16 + 128 * 5 + 5


def test_unknown_network_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'Resnet201' \(did you mean 'resnet20'\?\)") as e:
        build_model("Resnet201")
    assert all(name in str(e.value) for name in network_names())
    with pytest.raises(ValueError, match=r"'shufflev1' \(did you mean 'ShuffleV1'"):
        build_model("shufflev1")
    with pytest.raises(ValueError, match=r"unknown network 'transformer'; allowed: "):
        build_model("transformer")


def test_nonsense_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        build_model("resnet8", 0)
    with pytest.raises(ValueError, match="depth 6n \\+ 2, not 21"):
        ResNet(21, (16, 16, 32, 64), 10)
    with pytest.raises(ValueError, match="depth 6n \\+ 4, not 4"):
        WideResNet(4, 1, 10)
