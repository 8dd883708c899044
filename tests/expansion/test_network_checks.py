"""Networks that a sheet may not use: made for other images, or drawing from a global generator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from skd.data.images import DatasetFacts
from skd.expansion.network_checks import size_problem
from skd.models import build_model, network_names
from skd.models.step_dropout import StepDropout
from skd.study.sheet_files import StudyError
from tests.builders import tiny
from tests.builders.networks import added_networks

MADE_FOR_IMAGENET = {"resnet18", "resnet34", "resnet50", "MobileNetV1"}


def facts(size: int) -> DatasetFacts:
    return DatasetFacts(num_classes=10, train_images=100, test_images=100, size=size)


def test_every_network_says_what_it_is_made_for() -> None:
    sizes = {name: build_model(name, 2).made_for for name in network_names()}
    assert {name for name, size in sizes.items() if size == 224} == MADE_FOR_IMAGENET
    assert {*sizes.values()} == {32, 224}


@pytest.mark.parametrize(
    ("name", "size", "fragment"),
    [
        ("resnet50", 32, r"resnet50 is made for images of 224 px, and these have 32 px; use a "
         r"network made for 32 px \(did you mean 'ResNet50'\?\)"),
        ("resnet18", 63, "made for 32 px"),
        ("ResNet50", 224, r"made for 224 px \(did you mean 'resnet50'\?\); allowed: [^,]*MobileN"),
        ("resnet8", 224, "made for images of 32 px, and these have 224 px"),
        ("resnet50", 64, None),
        ("resnet8", 64, None),
        ("resnet8", 16, None),
    ],
)  # fmt: skip
def test_the_stem_must_suit_the_images(name: str, size: int, fragment: str | None) -> None:
    problem = size_problem(name, facts(size))
    assert problem is None if fragment is None else re.search(fragment, problem)


def test_a_sheet_with_the_wrong_kind_names_the_place() -> None:
    pairs = [{"teacher": "teacher", "student": "resnet18"}]
    with pytest.raises(StudyError, match=r"pairs: student: resnet18 is made for images of 224 px"):
        tiny.study(pairs=pairs)
    teachers = {"teacher": {"network": "resnet50", "train": {"seed": 7}}}
    with pytest.raises(StudyError, match=r"teachers.teacher: network: resnet50 .* 'ResNet50'"):
        tiny.study(teachers=teachers)


def test_dropout_from_the_global_generator_is_refused_where_it_trains(tmp_path: Path) -> None:
    imported = {"import": {"file": str(tmp_path / "none.pth"), "sha256": "a" * 64}}
    with added_networks(dropping=nn.Dropout, stepping=StepDropout):
        with pytest.raises(
            StudyError,
            match=r"pairs: student: the layer drop \(Dropout\) of dropping draws from torch's "
            r"global generator, .*; use StepDropout",
        ):
            tiny.study(pairs=[{"teacher": "teacher", "student": "dropping"}])
        with pytest.raises(StudyError, match=r"teachers.teacher: network: the layer drop"):
            tiny.study(teachers={"teacher": {"network": "dropping", "train": {"seed": 7}}})
        # An imported teacher only evaluates. StepDropout may train.
        tiny.study(
            teachers={"teacher": {"network": "dropping", **imported}},
            pairs=[{"teacher": "teacher", "student": "stepping"}],
        )
