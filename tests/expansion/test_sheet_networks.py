"""Networks of other libraries in a sheet: identities, names, and refusals that name the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skd.authoring.network_checks import check_network_contract
from skd.study.expansion import Expansion
from skd.study.expansion_files import read_expansion_file, write_expansion
from skd.study.sheet_files import StudyError
from tests.builders import tiny

STAGES = ["relu", "layer1", "layer2", "layer3", "layer4"]
NETWORK = {"wrap": "torchvision/resnet18", "stages": STAGES}
TRAIN = {"seed": 7, "recipe": {"epochs": 1, "milestones": []}}
TEACHERS = {"big": {"network": "tv18", "train": TRAIN}}
PAIRS = [{"teacher": "big", "student": "tv18"}, {"teacher": "big", "student": "resnet8"}]


def wrapping(network: dict[str, Any] = NETWORK, **changes: Any) -> Expansion:
    return tiny.study(
        **{
            "networks": {"tv18": network},
            "teachers": TEACHERS,
            "pairs": PAIRS,
            "methods": ["student", "kd", "fitnet"],
            **changes,
        }
    )


def test_specs_hold_the_description_and_names_are_the_sheets(tmp_path: Path) -> None:
    study = wrapping()
    assert [cell.key for cell in study.cells[:3]] == [
        "tv18/student",
        "big--tv18/kd",
        "big--tv18/fitnet",
    ]
    network = study.cells[0].spec.network
    assert network == (
        'wrap:{"options":{},"stages":["relu","layer1","layer2","layer3","layer4"],'
        '"wrap":"torchvision/resnet18"}'
    )
    assert study.teachers[0].spec.network == network
    assert study.networks["tv18"] == study.networks[network]
    assert study.networks[network].family == "wrapped"
    assert read_expansion_file(write_expansion(study, tmp_path)) == study
    assert "skd/models/wrapped.py" in study.code_of(study.cells[0].spec)


def test_another_description_is_another_run_and_another_name_is_not() -> None:
    first = wrapping().cells[0].spec.identity
    other = {**NETWORK, "options": {"zero_init_residual": True}}
    assert wrapping(other).cells[0].spec.identity != first
    renamed = wrapping(
        networks={"mine": NETWORK},
        teachers={"big": {**TEACHERS["big"], "network": "mine"}},
        pairs=[{"teacher": "big", "student": "mine"}],
    )
    assert renamed.cells[0].spec.identity == first


def test_a_teacher_of_that_name_has_the_network() -> None:
    teacher = {"train": TRAIN}
    study = wrapping(teachers={"tv18": teacher}, pairs=[{"teacher": "tv18", "student": "resnet8"}])
    assert study.teachers[0].spec.network.startswith("wrap:")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrap": "torchvision/resnet19"}, "tv18: unknown torchvision network 'resnet19'"),
        ({"stages": ["relu", "layer5"]}, "networks: tv18: .*unknown module 'layer5'"),
        ({"options": {"depth": 3}}, "networks: tv18: torchvision/resnet18: options: TypeError"),
        ({"stages": ["relu", "fc"]}, "does not run on 16 px images: stages: fc gives a tensor"),
        (
            {"wrap": "torchvision/mobilenet_v2", "stages": ["features.0", "features.18"]},
            r"pairs: student: the layer classifier.0 \(Dropout\) of torchvision/mobilenet_v2 draws "
            r".*turn it off in its options",
        ),
        (
            {"wrap": "torchvision/googlenet", "stages": ["conv1", "inception3a"],
             "options": {"init_weights": False}},
            "does not run in training: its output in training is not one tensor of logits",
        ),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_used_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        wrapping(
            {**NETWORK, **changes},
            teachers=tiny.SHEET["teachers"],
            pairs=[{"teacher": "teacher", "student": "tv18"}],
        )


def test_its_dropout_may_be_turned_off_by_an_option() -> None:
    network = {
        "wrap": "torchvision/mobilenet_v2",
        "stages": ["features.0", "features.18"],
        "options": {"dropout": 0.0},
    }
    assert wrapping(network, methods=["kd"]).cells


def test_a_name_of_the_suite_and_an_unknown_library_are_refused() -> None:
    with pytest.raises(StudyError, match="networks: resnet8: this suite has a network"):
        wrapping(networks={"resnet8": NETWORK, "tv18": NETWORK})
    with pytest.raises(ValidationError, match="write torchvision/NAME or timm/NAME"):
        wrapping({**NETWORK, "wrap": "keras/resnet18"})


def test_wrapped_networks_are_sound() -> None:
    """Among others: their training repeats and resumes bit for bit."""
    results = list(check_network_contract(wrapping().cells[0].spec.network))
    assert [result for result in results if result.problem] == []


def test_a_network_without_a_linear_layer_is_refused() -> None:
    network = {"wrap": "torchvision/squeezenet1_1", "stages": ["features.1", "features.4"]}
    with pytest.raises(StudyError, match=r"networks: tv18: .* it has no linear layer"):
        wrapping(network)


def test_a_wrapped_teacher_is_trained_and_teaches(tmp_path: Path) -> None:
    network = {
        "wrap": "torchvision/mobilenet_v2",
        "stages": ["features.0", "features.3", "features.6", "features.13"],
        "options": {"dropout": 0.0, "width_mult": 0.25},
    }
    study = wrapping(
        network,
        teachers={"teacher": TEACHERS["big"]},
        pairs=[{"teacher": "teacher", "student": "resnet8"}],
        methods=["fitnet"],
        recipe={"epochs": 1, "milestones": []},
    )
    record = tiny.run(study, tmp_path, "fitnet")
    assert record.code["skd/models/wrapped.py"]
    assert record.spec.teacher.network == study.teachers[0].spec.network
