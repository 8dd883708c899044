"""Display names: the field's, the sheet's, and those of a user's own methods and networks."""

import pytest

from report.findings import read_findings
from report.names import DISPLAY_NAMES, Names, ordered_for_display
from skd.common.yaml_files import read_yaml
from skd.losses.methods import method_names
from skd.models import network_names
from skd.study.presentation import in_display_order
from tests.builders.reported_study import filled, make_study

USUAL = read_yaml(DISPLAY_NAMES)


def named(*methods: str, display: dict[str, str] | None = None) -> Names:
    changes = {"methods": methods, "display": display or {}}
    return Names.of(make_study().model_copy(update=changes))


def test_every_shipped_network_and_method_has_a_display_name():
    assert set(USUAL["networks"]) == set(network_names())
    alone = {name for name in method_names() if "+" not in name}
    assert alone <= set(USUAL["methods"])
    for names in USUAL.values():
        assert all(text == " ".join(text.split()) for text in names.values())


def test_names_are_those_of_papers():
    names = named("student", "kd", "skd", "skd+kd", "skd+reviewkd", "kd-T-8")
    assert [names.method(m) for m in ("student", "kd", "skd+kd", "skd+reviewkd", "kd-T-8")] == [
        "Student alone", "KD", "SKD + KD", "SKD + ReviewKD", "kd-T-8",
    ]  # fmt: skip
    assert names.network("wrn_16_1") == "WRN-16-1"
    assert names.network("my_teacher") == "my_teacher"
    assert names.network('wrap:{"options":{},"stages":["a","b"],"wrap":"timm/x"}') == "timm/x"
    assert names.pair(("resnet32x4", "ShuffleV2")) == "ResNet-32x4 → ShuffleNetV2"


def test_the_sheet_overrides_them_also_within_sums():
    display = {"skd": "SFKD", "kd-T-8": "KD, T = 8", "resnet56": "Our ResNet-56"}
    names = named("kd", "skd", "skd+kd", "kd-T-8", display=display)
    assert names.method("skd+kd") == "SFKD + KD"
    assert names.method("kd-T-8") == "KD, T = 8"
    assert names.pair(("resnet56", "resnet20")) == "Our ResNet-56 → ResNet-20"


def test_two_methods_never_share_a_name():
    names = named("KD", "kd")
    assert (names.method("KD"), names.method("kd")) == ("KD", "kd")
    names = named("kd", "dkd", display={"dkd": "KD"})
    assert (names.method("kd"), names.method("dkd")) == ("kd", "KD")


@pytest.mark.parametrize(
    ("display", "expected"),
    [
        ([], "abcd"),
        (["c"], "abcd"),  # renaming one method moves none
        (["d", "a"], "dbca"),
        (["c", "resnet20", "b", "a", "d"], "cbad"),
    ],
)
def test_listed_methods_share_their_places_in_the_order_of_display(display, expected):
    assert "".join(in_display_order(tuple("abcd"), display)) == expected


def test_the_order_is_that_of_tables_and_frames(tmp_path):
    study = filled(tmp_path)
    study = study.model_copy(update={"display": {"skd+kd": "SKD + KD", "kd": "KD"}})
    assert ordered_for_display(study).cells == study.cells
    findings = read_findings(study, tmp_path)
    expected = ["student", "skd+kd", "dkd", "skd", "kd", "T-8"]
    assert [cell.method for cell in findings.pairs[0].cells] == expected
    assert list(findings.expansion.methods) == expected
    assert list(findings.frames.runs["method"].unique()) == expected
