"""Networks of torchvision and timm: outputs, keys, and what cannot be wrapped."""

from __future__ import annotations

import copy
import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import torch
import torchvision
import yaml

from skd.common.errors import SkdError
from skd.common.wrapped_networks import NOT_OPTIONS, network_label, parse_wrapped, wrapped_name
from skd.models import build_model, check_network, network_family
from skd.models.global_draws import drawing_layer
from skd.models.network import MissingPartError
from tests.builders.networks import images, lived_in
from tests.builders.paths import ROOT

RESNET = ("relu", "layer1", "layer2", "layer3", "layer4")
MOBILE = ("features.0", "features.3", "features.6", "features.13", "features.18")


def name(source: str, stages: tuple[str, ...] = RESNET, **options: object) -> str:
    return wrapped_name(source, stages, options)


@torch.no_grad()
def test_a_wrapped_resnet_has_the_outputs_of_the_suites_own() -> None:
    ours = lived_in("resnet18", 10).eval()
    theirs = build_model(name("torchvision/resnet18"), 10).eval()
    theirs.load_state_dict(ours.state_dict())  # the library's keys
    x = images(2, 64)
    got, wanted = theirs.forward_features(x), ours.forward_features(x)
    torch.testing.assert_close(got.logits, wanted.logits)
    torch.testing.assert_close(got.pooled, wanted.pooled)
    for a, b in zip(got.stages, wanted.stages, strict=True):
        torch.testing.assert_close(a, b)
    assert got.preactivations == ()
    assert torch.equal(theirs.final_layer()(got.pooled), got.logits)
    assert torch.equal(theirs(x), got.logits)


def test_its_keys_are_the_librarys_in_both_directions() -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    wrapped = build_model(name("torchvision/resnet18"), 10)
    assert list(wrapped.state_dict()) == list(theirs.state_dict())
    wrapped.load_state_dict(theirs.state_dict())
    assert torch.equal(wrapped.network.fc.weight, theirs.fc.weight)
    holder = torch.nn.ModuleDict({"part": wrapped})
    assert all(key.startswith("part.") and "network" not in key for key in holder.state_dict())
    holder.load_state_dict(holder.state_dict())


def test_in_place_activations_do_not_change_the_stages() -> None:
    """vgg11_bn's ReLUs are in place: its BatchNorm's output would be overwritten."""
    wrapped = build_model(name("torchvision/vgg11_bn", ("features.1", "features.5")), 10).eval()
    with torch.no_grad():
        assert wrapped.forward_features(images(1, 32)).stages[0].min() < 0


def test_gradients_flow_through_the_stages() -> None:
    wrapped = build_model(name("torchvision/mobilenet_v2", MOBILE, dropout=0.0), 10)
    out = wrapped.forward_features(images(2, 32))
    gradients = torch.autograd.grad(out.logits.square().sum(), out.stages)
    assert all(gradient.any() for gradient in gradients)


def test_a_copy_and_threads_read_their_own_maps() -> None:
    """Lanes are threads that share a teacher."""
    wrapped = build_model(name("torchvision/resnet18"), 10).eval()
    inputs = [images(1, 32) * scale for scale in (0.5, 1.0, 2.0, 3.0)] * 3
    with torch.no_grad():
        wanted = [copy.deepcopy(wrapped).forward_features(x).stages[2] for x in inputs]

        def maps(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return wrapped.forward_features(x).stages[2]

        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(maps, inputs))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_it_has_no_forward_from() -> None:
    with pytest.raises(MissingPartError):
        build_model(name("torchvision/resnet18"), 10).forward_from(1, images())


@pytest.mark.parametrize("option", sorted(NOT_OPTIONS))
def test_options_that_load_weights_or_set_the_classes_are_refused(option: str) -> None:
    with pytest.raises(SkdError, match=f"options: {option} cannot be set: .*import a tea"):
        build_model(name("torchvision/resnet18", **{option: None}), 10)


def test_a_name_is_one_text_for_one_description() -> None:
    first = wrapped_name("timm/x", ["a", "b"], {"p": 1, "q": 0.0})
    assert first == wrapped_name("timm/x", ("a", "b"), {"q": 0.0, "p": 1})
    assert first != wrapped_name("timm/x", ("b", "a"), {"p": 1, "q": 0.0})
    parsed = parse_wrapped(first)
    assert (parsed.label, parsed.stages, parsed.options) == ("timm/x", ("a", "b"), {"p": 1, "q": 0})
    assert json.loads(first.removeprefix("wrap:"))["wrap"] == "timm/x"
    assert network_label(first) == "timm/x"
    assert network_label("resnet8") == "resnet8"
    assert parse_wrapped("resnet8") is None
    assert network_family(first) == "wrapped"


@pytest.mark.parametrize(
    ("wrapped", "message"),
    [
        (name("torchvision/resnet19"), r"unknown torchvision network 'resnet19' \(did you mean"),
        (
            name("torchvision/resnet18", ("relu", "layer5")),
            r"torchvision/resnet18: stages: unknown module 'layer5' \(did you mean 'layer.*relu",
        ),
        (name("torchvision/resnet18", dropout=0.5), "options: TypeError: .*dropout"),
    ],
)
def test_a_wrong_description_is_refused(wrapped: str, message: str) -> None:
    with pytest.raises(SkdError, match=message):
        check_network(wrapped)


@pytest.mark.parametrize(
    ("source", "stages", "message"),
    [
        ("torchvision/resnet18", ("relu", "layer1.0.relu"), "layer1.0.relu runs 2 times in a pass"),
        ("torchvision/resnet18", ("relu", "fc"), r"fc gives a tensor \(1, 10\); name a module"),
        ("torchvision/densenet121", ("features.relu0", "features"), "changes the map of features"),
    ],
)
def test_a_stage_that_gives_no_lasting_map_is_refused(
    source: str, stages: tuple[str, ...], message: str
) -> None:
    network = build_model(name(source, stages), 10).eval()
    with torch.no_grad(), pytest.raises(SkdError, match=message):
        network.forward_features(images(1, 32))


def test_timm_works_or_says_how_to_install_it() -> None:
    source = name("timm/resnet18", ("act1", "layer1", "layer2", "layer3", "layer4"))
    try:
        import timm
    except ImportError:
        with pytest.raises(SkdError, match=r"timm is not installed: pip install 'skd\[timm\]'"):
            check_network(source)
        return
    wrapped = build_model(source, 10).eval()
    theirs = timm.create_model("resnet18", num_classes=10).eval()
    wrapped.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        out = wrapped.forward_features(images(1, 64))
        assert torch.equal(out.logits, theirs(images(1, 64)))
    assert [maps.shape[1] for maps in out.stages] == [64, 64, 128, 256, 512]
    with pytest.raises(SkdError, match="unknown timm network 'resnet19'"):
        check_network(name("timm/resnet19"))


def test_the_documented_networks_run() -> None:
    text = (ROOT / "docs/networks.md").read_text()
    sheet = yaml.safe_load(re.search(r"```yaml\n(networks:.*?)```", text, re.DOTALL).group(1))
    for entry in sheet["networks"].values():
        if entry["wrap"].startswith("timm/") and find_spec("timm") is None:
            continue
        network = build_model(name(entry["wrap"], entry["stages"], **entry.get("options", {})), 10)
        out = network.forward_features(images(2, 64))
        sides = [maps.shape[-1] for maps in out.stages]
        assert sides == sorted(sides, reverse=True)
        assert drawing_layer(network, images(2, 64)) is None
