"""ImageNet's networks: torchvision's own beside ours, and the field's MobileNetV1."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights, ResNet34_Weights, ResNet50_Weights

from skd.models import build_model, network_family
from skd.models.accounting import count_parameters, multiply_adds
from tests.builders.networks import by_formula, images, lived_in, seeded, wave

# torchvision documents the cost of its networks in thousands of millions, of the weights of 224.
DOCUMENTED = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1.meta,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1.meta,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1.meta,
}
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "MobileNetV1": 4_231_976,
}
WIDTHS = {
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
    "MobileNetV1": (32, 128, 256, 512, 1024),
}
# The second image's first three logits from mdistiller's own classes (float64, training mode), with
# the weights and images of `by_formula`.
REFERENCE_LOGITS = {
    "resnet18": (-4.951053848, -3.101367048, -1.104868285),
    "resnet50": (-16.348266324, -2.075227277, 14.156405875),
    "MobileNetV1": (-1.022692017, 1.729222397, 4.015520177),
}


def reference(name: str) -> nn.Module:
    """Return torchvision's network with our network's weights, both in double precision."""
    theirs = torchvision.models.get_model(name, num_classes=10).double()
    theirs.load_state_dict(lived_in(name, num_classes=10).state_dict())
    return theirs.eval()


def test_names_do_not_clash_with_cifars() -> None:
    assert network_family("resnet50") != network_family("ResNet50")
    assert network_family("resnet18") == network_family("resnet34") == network_family("resnet50")
    assert network_family("resnet18") != network_family("resnet20")


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_shapes_at_224(name: str) -> None:
    model = build_model(name, 1000).eval()
    assert count_parameters(model) == PARAMETERS[name]
    with torch.no_grad():
        out = model.forward_features(images(1, 224))
    sides = (112, 56, 28, 14, 7)
    shapes = [(1, width, side, side) for width, side in zip(WIDTHS[name], sides, strict=True)]
    assert [tuple(stage.shape) for stage in out.stages] == shapes
    assert [tuple(raw.shape) for raw in out.preactivations] == shapes
    assert out.pooled.shape == (1, WIDTHS[name][-1])
    assert out.logits.shape == (1, 1000)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_resnets_have_the_documented_size(name: str) -> None:
    meta = DOCUMENTED[name]
    assert meta["num_params"] == PARAMETERS[name]
    macs = multiply_adds(build_model(name, 1000), (3, 224, 224))
    assert macs / 1e9 == pytest.approx(meta["_ops"], abs=5e-4)


def test_mobilenetv1_has_the_papers_multiply_adds() -> None:
    """Count by table 1's layers: (width in, width out, side out) of the separable blocks."""
    layers = [(32, 64, 112), (64, 128, 56), (128, 128, 56), (128, 256, 28), (256, 256, 28)]
    layers += [(256, 512, 14), *[(512, 512, 14)] * 5, (512, 1024, 7), (1024, 1024, 7)]
    blocks = sum(side**2 * before * (9 + after) for before, after, side in layers)
    macs = multiply_adds(build_model("MobileNetV1", 1000), (3, 224, 224))
    assert macs == 112**2 * 27 * 32 + blocks + 1024 * 1000
    assert round(macs / 1e6) == 569


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_checkpoint_of_torchvision_fits_key_by_key(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name).state_dict()
        ours = build_model(name, 1000).state_dict()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in theirs.items()]


@torch.no_grad()
@pytest.mark.parametrize("name", DOCUMENTED)
def test_logits_and_stages_are_torchvisions(name: str) -> None:
    theirs, x = reference(name), images(2, 64).double()
    stage_maps: list[torch.Tensor] = []
    for place in ("relu", "layer1", "layer2", "layer3", "layer4", "avgpool"):
        theirs.get_submodule(place).register_forward_hook(lambda *a: stage_maps.append(a[2]))
    logits = theirs(x)
    out = lived_in(name, num_classes=10).double().eval().forward_features(x)
    torch.testing.assert_close(out.logits, logits)
    for stage, wanted in zip(out.stages, stage_maps[:-1], strict=True):
        torch.testing.assert_close(stage, wanted)
    torch.testing.assert_close(out.pooled, stage_maps[-1].flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("name", REFERENCE_LOGITS)
def test_logits_equal_the_fields_code(name: str) -> None:
    model = by_formula(build_model(name, 1000)).train()
    logits = model(wave(torch.Size((2, 3, 224, 224)), 0.37))
    assert logits[1, :3].tolist() == pytest.approx(REFERENCE_LOGITS[name], rel=1e-7)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", PARAMETERS)
def test_stage_is_activated_preactivation(name: str, train: bool) -> None:
    out = lived_in(name).train(train).forward_features(images(4, 64))
    assert out.preactivations[0] is out.stages[0]
    assert out.stages[0].min() == 0
    for stage, raw in zip(out.stages[1:], out.preactivations[1:], strict=True):
        assert raw.min() < 0
        assert torch.equal(F.relu(raw), stage)
    torch.testing.assert_close(out.pooled, out.stages[-1].mean((2, 3)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "MobileNetV1"])
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = seeded(name)
    model.forward_features(images(4, 64)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_initial_weights_are_drawn_by_torchvisions_law(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torchvision.models.get_model(name).state_dict()
    for key, ours in seeded(name, num_classes=1000).state_dict().items():
        if ours.ndim == 4:
            # Five standard errors of the ratio of two normal samples' deviations.
            tolerance = 5 / ours.numel() ** 0.5
            assert ours.std() / theirs[key].std() == pytest.approx(1, abs=tolerance), key
        elif key.startswith("fc"):
            bound = theirs["fc.weight"].shape[1] ** -0.5
            assert 0.98 * bound < ours.abs().max() <= bound, key
        else:
            assert torch.equal(ours, theirs[key]), key


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "MobileNetV1"])
def test_channels_last_changes_no_value(name: str) -> None:
    model, x = lived_in(name).eval(), images(2, 64)
    with torch.no_grad():
        plain = model(x)
        last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-5 * plain.abs().max().item())
