"""Teachers that a method trains: in the sheet's teachers, and for a method of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skd.expansion.expand import expand_study
from skd.planning.budget_proposal import propose_pairs
from skd.study.expansion import Expansion, TeacherNode
from skd.study.sheet_files import StudyError
from tests.builders.sheets import Change, put, run_ids, teacher_ids

SFTN = {"name": "sftn+kd", "like": "kd", "teacher": {"method": "sftn"}}
SOTEACHER = {"name": "soteacher+kd", "like": "kd", "teacher": {"method": "soteacher"}}
METHODS = put("methods", ["student", "kd", SFTN, SOTEACHER])
FILE = {"network": "resnet20", "import": {"file": "nowhere.pth"}}


def trained(**source: Any) -> Change:
    return put("teachers", "big", "train", {"seed": 0, **source})


def terms(node: TeacherNode) -> dict[str, dict[str, Any]]:
    return {term.term: term.settings for term in node.spec.run.method.terms}


def test_a_teacher_is_trained_by_its_method_with_settings_and_partner(
    expanded: Callable[..., Expansion],
) -> None:
    study = expanded(
        trained(method="sftn", partner="vgg8", settings={"sftn": {"temperature": 2}}),
        put("teachers", "big", "network", "ResNet50"),
    )
    node = study.teacher("big")
    assert node.spec.run.partner == node.partner == "vgg8"
    assert terms(node)["sftn"]["temperature"] == 2
    assert terms(node)["cross_entropy"]["weight"] == 1
    assert node.origin == "trained here by sftn for vgg8, seed 0"
    assert node.extra.parameters > 0  # of the branches, for the estimates
    # What its numbers depend on includes the partner's network and the loss.
    assert {"vgg8", "ResNet50", "wrn_16_2", "resnet8", "resnet14"} == {*study.networks}
    assert {"skd/models/vgg.py", "baselines/sftn.py"} <= {*study.code_of(node.spec.run)}


def test_the_default_method_written_out_changes_no_identity(
    expanded: Callable[..., Expansion],
) -> None:
    plain = expanded()
    written = expanded(trained(method="student", settings={}))
    assert (run_ids(plain), teacher_ids(plain)) == (run_ids(written), teacher_ids(written))
    other = expanded(trained(method="soteacher"))
    assert teacher_ids(other)["big"] != teacher_ids(plain)["big"]
    assert other.teacher("big").origin == "trained here by soteacher, seed 0"


def test_a_methods_own_teachers_stay_in_the_rows_of_their_pairs(
    expanded: Callable[..., Expansion],
) -> None:
    study = expanded(METHODS)
    own = {cell.key: cell.teacher for cell in study.cells if "+" in cell.method}
    assert own == {
        "big--resnet8/sftn+kd": "big-sftn-resnet8",
        "big--resnet8/soteacher+kd": "big-soteacher",
        "big--resnet14/sftn+kd": "big-sftn-resnet14",
        "big--resnet14/soteacher+kd": "big-soteacher",
        "wrn_16_2--resnet8/sftn+kd": "wrn_16_2-sftn-resnet8",
        "wrn_16_2--resnet8/soteacher+kd": "wrn_16_2-soteacher",
    }
    assert [node.name for node in study.teachers][:2] == ["big", "wrn_16_2"]
    assert {node.name for node in study.teachers[2:]} == {*own.values()}
    for cell in study.cells:
        if cell.teacher is not None:
            assert cell.spec.teacher.identity == study.teacher(cell.teacher).id
    assert study.cell_of("big", "resnet14", "sftn+kd").teacher == "big-sftn-resnet14"
    for name, partner in (("big-sftn-resnet8", "resnet8"), ("big-soteacher", None)):
        node, pairs = study.teacher(name), study.teacher("big")
        assert node.spec.run.partner == partner
        assert (node.spec.network, node.spec.run.seed) == ("resnet20", 0)
        assert node.spec.run.recipe == pairs.spec.run.recipe
    assert teacher_ids(expanded()).items() <= teacher_ids(study).items()


def test_methods_share_equal_teachers_and_have_others_by_their_own_name(
    expanded: Callable[..., Expansion],
) -> None:
    changed = {"method": "sftn", "settings": {"sftn": {"divergence": 1}}}
    study = expanded(
        put(
            "methods",
            [
                SFTN,
                {"name": "sftn+skd", "like": "skd", "teacher": {"method": "sftn"}},
                {"name": "again", "like": "dkd", "teacher": {"method": "student"}},
                {"name": "seed", "like": "kd", "teacher": {"method": "student", "seed": 4}},
                {"name": "weak", "like": "kd", "teacher": changed, "sweep": {"kd.weight": [1, 2]}},
            ],
        ),
        put("pairs", [{"teacher": "big", "student": "resnet8"}]),
        put("settings", {"dkd": {"warmup_epochs": 2}}),
    )
    assert {cell.method: cell.teacher for cell in study.cells} == {
        "sftn+kd": "big-sftn-resnet8",
        "sftn+skd": "big-sftn-resnet8",
        "again": "big",  # the pair's teacher itself
        "seed": "big-student",
        "weak-1": "big-weak-resnet8",
        "weak-2": "big-weak-resnet8",
    }
    assert terms(study.teacher("big-weak-resnet8"))["sftn"]["divergence"] == 1
    assert study.teacher("big-student").spec.run.seed == 4


def test_an_equal_teacher_of_the_sheet_keeps_its_name(expanded: Callable[..., Expansion]) -> None:
    written = {"network": "resnet20", "train": {"seed": 0, "method": "sftn", "partner": "resnet8"}}
    study = expanded(
        put("teachers", "suited", written),
        put("methods", [SFTN]),
        put("pairs", [{"teacher": "big", "student": "resnet8"}]),
    )
    assert [cell.teacher for cell in study.cells] == ["suited"]
    assert [node.name for node in study.teachers] == ["big", "suited"]


def test_the_pairs_recipe_and_cross_entropy_are_kept_and_may_be_changed(
    expanded: Callable[..., Expansion],
) -> None:
    changed = {"method": "soteacher", "recipe": {"learning_rate": 0.01}}
    changed["settings"] = {"cross_entropy": {"weight": 0.5}}
    study = expanded(
        trained(settings={"cross_entropy": {"weight": 2.0}}, recipe={"weight_decay": 0.25}),
        put("methods", [SOTEACHER, {"name": "other", "like": "kd", "teacher": changed}]),
    )
    same, other = study.teacher("big-soteacher"), study.teacher("big-other")
    assert terms(same)["cross_entropy"]["weight"] == 2
    assert terms(other)["cross_entropy"]["weight"] == 0.5
    rates = [
        (n.spec.run.recipe.weight_decay, n.spec.run.recipe.learning_rate) for n in (same, other)
    ]
    assert rates == [(0.25, 0.05), (0.25, 0.01)]


def test_a_pair_that_leaves_the_method_out_gets_no_teacher(
    expanded: Callable[..., Expansion],
) -> None:
    study = expanded(METHODS, put("pairs", 1, "without", ["sftn+kd", "soteacher+kd"]))
    assert not [node.name for node in study.teachers if node.name.startswith("wrn_16_2-")]
    assert study.methods_of("wrn_16_2", "resnet8") == ["student", "kd"]


def test_an_imported_teachers_network_is_trained_from_scratch_only_with_a_seed(
    expanded: Callable[..., Expansion],
) -> None:
    with pytest.raises(StudyError) as refused:
        expanded(METHODS, put("teachers", "big", FILE))
    for part in ("methods: sftn+kd: teacher", "big is imported", "a seed", "without: [sftn+kd]"):
        assert part in str(refused.value)
    own = {"method": "sftn", "seed": 3}
    methods = ["kd", {"name": "sftn+kd", "like": "kd", "teacher": own}]
    study = expanded(put("methods", methods), put("teachers", "big", FILE))
    node = study.teacher("big-sftn-resnet8")
    assert (node.spec.kind, node.spec.run.seed, node.spec.network) == ("trained", 3, "resnet20")
    assert study.teacher("big").spec.kind == "imported"


def test_a_budget_pays_for_every_teacher_of_a_pair(expanded: Callable[..., Expansion]) -> None:
    study = expanded(METHODS, put("seeds", 1))
    teachers = {node.name: 10.0 for node in study.teachers}
    runs = {cell.key: {0: 1.0} for cell in study.cells}
    proposal = propose_pairs(study, teachers, runs, 34.0)
    # The teacher, its two others, and four runs.
    assert (len(proposal.pairs), proposal.seconds) == (1, 34.0)


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (trained(metod="sftn"), ["teachers.big.train", "did you mean 'method'"]),
        (
            trained(method="sfnt"),
            ["teachers.big.train: method: unknown 'sfnt' (did you mean 'sftn'?)"],
        ),
        (
            trained(method="kd"),
            ["teachers.big.train: method: kd reads teacher logits", "soteacher", "student"],
        ),
        (trained(method="soteacher+skd"), ["teachers.big.train: method", "teacher logits"]),
        (
            trained(method="soteacher", settings={"soteacher": {"lipshitz": 1}}),
            ["teachers.big.train: term soteacher", "did you mean 'lipschitz'"],
        ),
        (
            trained(settings={"sftn": {}}),
            ["teachers.big.train: settings: has no part 'sftn'", "cross_entropy"],
        ),
        (
            trained(method="soteacher", settings={"soteacher": {"warmup_epochs": -1}}),
            ["teachers.big.train: term soteacher: warmup_epochs"],
        ),
        # Partners.
        (trained(method="sftn"), ["teachers.big.train: method: sftn", "write partner: NETWORK"]),
        (
            trained(partner="resnet8"),
            ["teachers.big.train: partner: student uses none", "train the teacher by sftn"],
        ),
        (trained(method="soteacher", partner="resnet8"), ["partner: soteacher uses none"]),
        (
            trained(method="sftn", partner="resnet9"),
            ["teachers.big.train: partner: unknown network 'resnet9' (did you mean 'resnet8'?)"],
        ),
        (
            trained(method="sftn", partner="resnet20"),
            ["teachers.big.train: partner: resnet20 is the teacher's own network (circular)"],
        ),
        (
            trained(method="sftn", partner="vgg8"),
            ["teachers.big.train: sftn: stages", "the teacher has 3 and the partner vgg8 has 4"],
        ),
        (
            lambda sheet: sheet["teachers"].update(
                {
                    "one": {
                        "network": "resnet20",
                        "train": {"seed": 0, "method": "sftn", "partner": "resnet8"},
                    },
                    "two": {
                        "network": "resnet8",
                        "train": {"seed": 0, "method": "sftn", "partner": "resnet20"},
                    },
                }
            ),
            ["teachers: one is a resnet20", "two is a resnet8", "circular partners"],
        ),
        # Teachers of methods.
        (
            put("methods", 1, {**SFTN, "teacher": {"metod": "sftn"}}),
            ["methods.1.teacher", "did you mean 'method'"],
        ),
        (
            put("methods", 1, {**SFTN, "teacher": "sftn"}),
            ["methods.1.teacher", "mapping", "sftn"],
        ),
        (
            put("methods", 1, {**SFTN, "teacher": {"method": "sfnt"}}),
            ["methods: sftn+kd: teacher: method: unknown 'sfnt' (did you mean 'sftn'?)"],
        ),
        (
            put("methods", 1, {**SFTN, "teacher": {"method": "dkd"}}),
            ["methods: sftn+kd: teacher: method: dkd reads teacher logits"],
        ),
        (
            put("methods", 1, {**SFTN, "teacher": {"method": "sftn", "recipe": {"epoch": 1}}}),
            ["methods: sftn+kd: teacher: recipe", "did you mean 'epochs'"],
        ),
        (
            put("methods", 1, {"name": "alone", "like": "student", "teacher": {"method": "sftn"}}),
            ["methods: alone: teacher: the method learns from no teacher"],
        ),
        (put("methods", 1, "sftn"), ["methods: sftn: trains a teacher", "teacher: {method: …}"]),
        (put("methods", 1, "kd+sftn"), ["methods: kd+sftn: trains a teacher"]),
        (
            lambda sheet: sheet.update(
                methods=["student", SFTN], pairs=[{"teacher": "big", "student": "resnet20"}]
            ),
            ["methods: sftn+kd: teacher: big--resnet20: partner", "without: [sftn+kd]"],
        ),
        (
            lambda sheet: sheet.update(
                methods=["student", SFTN], pairs=[{"teacher": "big", "student": "vgg8"}]
            ),
            ["methods: sftn+kd: teacher: big--vgg8: sftn: stages", "without: [sftn+kd]"],
        ),
    ],
)
def test_a_bad_teacher_is_refused_with_its_place_and_what_is_allowed(
    write: Callable[..., Path], change: Change, fragments: list[str]
) -> None:
    write(change)
    with pytest.raises(StudyError) as refused:
        expand_study("mine")
    for fragment in ["mine.yaml", *fragments]:
        assert fragment in str(refused.value)


def test_pairs_that_would_suit_each_other_are_refused(write: Callable[..., Path]) -> None:
    write(
        put("methods", [SFTN]),
        put("teachers", "small", {"network": "resnet8", "train": {"seed": 0}}),
        put(
            "pairs",
            [{"teacher": "big", "student": "resnet8"}, {"teacher": "small", "student": "resnet20"}],
        ),
    )
    with pytest.raises(StudyError, match=r"big-sftn-resnet8 is .*circular partners"):
        expand_study("mine")
