"""A network's parts: the layers after a stage, the last layer, the BatchNorms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from skd.models import build_model, network_names
from skd.models.network import FeatureNetwork, MissingPartError, Outputs
from tests.builders.networks import images, lived_in, seeded

# One network of every family, and of both kinds of block where a family has two.
FAMILIES = (
    "resnet8", "resnet8x4", "wrn_16_1", "vgg8", "vgg13", "MobileNetV2", "ShuffleV1", "ShuffleV2",
    "ResNet50", "resnet18", "resnet50", "MobileNetV1",
)  # fmt: skip
# By RepDistiller's `get_bn_before_relu` (and mdistiller's for ImageNet), which has no stem; ours is
# before it. RepDistiller refuses ShuffleNets, and its MobileNetV2 names linear layers.
NORMS = {
    "resnet20": ("bn1", "layer1.2.bn2", "layer2.2.bn2", "layer3.2.bn2"),
    "resnet32x4": ("bn1", "layer1.4.bn2", "layer2.4.bn2", "layer3.4.bn2"),
    "wrn_40_2": (None, "block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"),
    "vgg13": ("block0.4", "block1.4", "block2.4", "block3.4", "block4.4"),
    "ResNet50": ("bn1", "layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3"),
    "resnet34": ("bn1", "layer1.2.bn2", "layer2.3.bn2", "layer3.5.bn2", "layer4.2.bn2"),
    "resnet50": ("bn1", "layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3"),
    "MobileNetV1": ("model.0.1", "model.3.4", "model.5.4", "model.11.4", "model.13.4"),
    "MobileNetV2": (),
    "ShuffleV1": ("bn1", "layer1.3.bn3", "layer2.7.bn3", "layer3.3.bn3"),
    "ShuffleV2": ("bn1", None, None, None),
}


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_after_each_stage_give_the_same_outputs(name: str, size: int) -> None:
    network = lived_in(name).eval()
    whole = network.forward_features(images(size=size))
    for index, maps in enumerate(whole.stages):
        rest = network.forward_from(index, maps)
        assert rest.stages[0] is maps
        for ours, wanted in zip(flat(rest), flat(since(whole, index)), strict=True):
            assert torch.equal(ours, wanted), index
        if rest.preactivations:
            assert rest.preactivations[0] is maps


def since(outputs: Outputs, stage: int) -> Outputs:
    later = outputs.preactivations and (outputs.stages[stage], *outputs.preactivations[stage + 1 :])
    return Outputs(outputs.logits, outputs.stages[stage:], later, outputs.pooled)


def flat(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs.logits, outputs.pooled, *outputs.stages, *outputs.preactivations)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_layers_after_a_stage_run(name: str) -> None:
    """In training mode, exactly their BatchNorms count a batch; the maps get a gradient."""
    network = seeded(name)
    maps = network.forward_features(images()).stages[1].detach().requires_grad_()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    counts = [int(norm.num_batches_tracked) for norm in norms]
    assert counts == [1] * len(norms)
    network.forward_from(1, maps).logits.square().sum().backward()
    ran = [int(norm.num_batches_tracked) == 2 for norm in norms]
    trained = [norm.weight.grad is not None for norm in norms]
    assert ran == trained
    assert any(ran)
    assert not all(ran)
    assert maps.grad is not None


@torch.no_grad()
@pytest.mark.parametrize("name", network_names())
def test_the_final_layer_maps_the_pooled_feature_to_the_logits(name: str) -> None:
    network = lived_in(name).eval()
    outputs = network.forward_features(images(size=16))
    assert torch.equal(network.final_layer()(outputs.pooled), outputs.logits)


@pytest.mark.parametrize("name", NORMS)
def test_the_batchnorms_are_those_that_the_fields_code_reads(name: str) -> None:
    network = build_model(name)
    names = {id(module): key for key, module in network.named_modules()}
    assert tuple(norm and names[id(norm)] for norm in network.preactivation_norms()) == NORMS[name]


@torch.no_grad()
@pytest.mark.parametrize("name", network_names())
def test_there_is_a_batchnorm_for_each_preactivation(name: str) -> None:
    network = seeded(name)
    outputs = network.forward_features(images(size=16))
    pairs = zip(network.preactivation_norms(), outputs.preactivations, strict=True)
    for norm, raw in pairs:
        assert norm is None or norm.num_features == raw.shape[1]


@pytest.mark.parametrize("stage", [-1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_stage_that_does_not_exist_is_refused(name: str, stage: int) -> None:
    with pytest.raises(ValueError, match=rf"stage must be 0 \(the stem\) to [34], not {stage}"):
        seeded(name).forward_from(stage, torch.zeros(1, 1, 4, 4))


def test_a_network_that_defines_no_parts_says_so() -> None:
    class Plain(FeatureNetwork):
        def forward_features(self, images: Tensor) -> Outputs:
            raise NotImplementedError

    assert Plain().preactivation_norms() == ()
    with pytest.raises(MissingPartError, match=r"the network Plain has no forward_from\(stage"):
        Plain().forward_from(0, images())
    with pytest.raises(MissingPartError, match=r"has no final_layer\(\); define it in the class"):
        Plain().final_layer()
