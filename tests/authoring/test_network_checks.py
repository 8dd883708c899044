"""The checks of a network: sound ones pass, and each fault is found by the check meant for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from skd import models
from skd.authoring.network_checks import check_fitting_methods, check_network_contract
from skd.common.plugins import BrokenFileError
from skd.models import build_model, network_names, networks_of_file
from skd.models.network import FeatureNetwork, Outputs
from tests.builders.networks import added_networks


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "MobileNetV2", "ShuffleV2"])
def test_the_suites_networks_are_sound(name: str) -> None:
    assert [result for result in check_network_contract(name) if result.problem] == []


class Faulty(FeatureNetwork):
    """A resnet8 whose outputs, or parts, a fault changes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = build_model("resnet8", num_classes)
        self.calls = 0

    def forward_features(self, images: Tensor) -> Outputs:
        return self.body.forward_features(images)

    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        return self.body.forward_from(stage, maps)

    def final_layer(self) -> nn.Module:
        return self.body.final_layer()

    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return self.body.preactivation_norms()


def changed(change: Callable[[Outputs], Outputs]) -> type[Faulty]:
    class Changed(Faulty):
        def forward_features(self, images: Tensor) -> Outputs:
            return change(super().forward_features(images))

    return Changed


class TwoPasses(Faulty):
    def forward_features(self, images: Tensor) -> Outputs:
        super().forward_features(images)
        return super().forward_features(images)


class OwnLogits(Faulty):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


class Counts(Faulty):
    """Its outputs depend on how often it ran, which no checkpoint has."""

    def forward_features(self, images: Tensor) -> Outputs:
        self.calls += self.training
        return super().forward_features(images * (1 + 0.1 * self.calls))


class Mixes(Faulty):
    def forward_features(self, images: Tensor) -> Outputs:
        return super().forward_features(images - images.mean(0))


class Unused(Faulty):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.rest = nn.Linear(3, 3)


class OtherRest(Faulty):
    def forward_from(self, stage: int, maps: Tensor) -> Outputs:
        return super().forward_from(stage, maps * (1 if stage == 0 else 1.5))


class OtherLayer(Faulty):
    def final_layer(self) -> nn.Module:
        return nn.Identity()


class OtherNorms(Faulty):
    def preactivation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(reversed(super().preactivation_norms()))


FAULTS = {
    "outputs": (changed(lambda o: replace(o, pooled=o.stages[-1])), "pooled must be (N, C)"),
    "stages in order": (
        changed(lambda o: replace(o, stages=(o.stages[0], *(s * 1 for s in o.stages[1:])))),
        "does not depend on stages[1]",
    ),
    "pre-activations": (
        changed(lambda o: replace(o, preactivations=o.preactivations[1:])),
        "one for each of the 4 stages, not 3",
    ),
    "one pass": (TwoPasses, "runs 2 times in one pass"),
    "images alone": (Mixes, "depend on the batch"),
    "gradients": (Unused, "no gradient reaches rest.weight, rest.bias"),
    "resumes": (Counts, "is all its state in parameters and buffers?"),
    "forward_from": (OtherRest, "forward_from(1, stages[1]) gives other outputs"),
    "final_layer": (OtherLayer, "does not give the logits"),
    "preactivation_norms": (OtherNorms, "entry 0 has 64 channels"),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found(check: str) -> None:
    network, message = FAULTS[check]
    with faulty(network):
        results = {result.check: result.problem for result in check_network_contract("faulty")}
    assert message in results[check]


def faulty(network: type[Faulty]):
    known = {**models._builders(), "faulty": network}
    return mock.patch.object(models, "_builders", return_value=known)


def test_another_logits_pass_is_found() -> None:
    with faulty(OwnLogits):
        results = {result.check: result.problem for result in check_network_contract("faulty")}
    assert "give other logits" in results["one pass"]


def test_a_layer_that_draws_is_named() -> None:
    with added_networks(drops=nn.Dropout):
        results = {result.check: result.problem for result in check_network_contract("drops")}
    assert "the layer drop (Dropout) draws" in results["no global draws"]


def test_a_network_without_parts_is_sound_and_says_what_is_refused() -> None:
    with added_networks(bare=nn.Identity):
        notes = {result.check: result for result in check_network_contract("bare")}
    assert not any(result.problem for result in notes.values())
    assert "methods that run a network's last stages are refused" in notes["forward_from"].note


def test_fitting_methods_come_with_reasons() -> None:
    notes = {result.check: result.note for result in check_fitting_methods("MobileNetV2")}
    assert notes["kd"] == "student of all; teacher of all"
    assert notes["student"] == "needs no teacher"
    assert "teacher of none" in notes["reviewkd"]
    assert "pre-activations" in notes["reviewkd"]


def test_a_file_elsewhere_is_found_within_the_context_only(tmp_path: Path) -> None:
    file = tmp_path / "own_family.py"
    file.write_text(
        "from skd.models.resnet import ResNet\n"
        "NETWORKS = {'own14': lambda classes: ResNet(14, (4, 4, 8, 8), classes)}\n"
    )
    with networks_of_file(file) as names:
        assert names == ("own14",)
        assert build_model("own14", 3)(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    assert "own14" not in network_names()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("resnet.py", "", "has a module 'resnet'; rename the file"),
        ("empty.py", "", "defines no network"),
        ("wrong.py", "import nothing_like_this", "ModuleNotFoundError"),
        ("with-dash.py", "", "its name must be letters, digits and _"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BrokenFileError, match=message), networks_of_file(tmp_path / name):
        pass
