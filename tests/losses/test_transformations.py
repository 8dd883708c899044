"""Transformations of the teacher's logits as plug-ins: discovery, and their place in the objective.

The transformations themselves: tests/baselines/ and test_simplifier.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import baselines
from baselines.simplifier import Simplifier
from skd.analyses.networks.examples import simplified_logits
from skd.common.errors import UnknownNameError
from skd.losses import discovery
from skd.losses.objective import Objective
from skd.losses.standardisation import standardise_logits
from skd.losses.term import Batch
from skd.losses.transformation import Transformation
from skd.study.sheet import StudyError
from skd.study.spec import MethodSpec, Recipe
from skd.training.optimizer import make_optimizer, set_learning_rate
from tests.builders.formulas import kl, nll
from tests.builders.losses import draw, make_batch, make_outputs
from tests.builders.objectives import chosen, objective_on

MAPS = [(3, 4, 4), (5, 2, 2), (6, 2, 2)]
CLASSES = 5


def batch_of(count: int = 4) -> Batch:
    student, teacher = (make_outputs(seed, count, MAPS, CLASSES) for seed in (0, 1))
    return make_batch(student, teacher, torch.arange(count) % CLASSES)


def trained(method: MethodSpec, batch: Batch) -> Objective:
    """Return a method's objective with drawn weights, as after a training."""
    objective = objective_on(method, batch)
    for place, parameter in enumerate(objective.parameters()):
        parameter.data = draw(100 + place, tuple(parameter.shape), 0.5)
    return objective


# Files of baselines/.

Add = Callable[[str, str], None]
HEADER = "from skd.terms import Term, Transformation\n"
BODY = "    def forward(self, batch):\n        return batch.teacher.logits\n"
PLAIN = f"{HEADER}class A(Transformation):\n{BODY}"


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Add a file to baselines/, for this test."""
    added = []
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    discovery._discover.cache_clear()

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        added.append(f"baselines.{name}")

    yield write
    discovery._discover.cache_clear()
    for module in added:
        sys.modules.pop(module, None)


def test_a_file_with_a_transformation_is_a_method_and_names_its_logits(add: Add) -> None:
    add("shifted", PLAIN)
    assert "shifted" in discovery.transformation_classes()
    assert "shifted" not in discovery.term_classes()
    assert "shifted" in discovery.logits_names()
    method = chosen("shifted")
    assert [part.name for part in method.transformations] == ["shifted"]
    assert method.terms[1].settings["teacher"] == "shifted"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("twice", f"{PLAIN}\nclass B(Transformation):\n{BODY}", "found 2"),
        ("both", f"{PLAIN}\nclass B(Term):\n{BODY}", "found 2"),
        ("none", HEADER, "found 0"),
        *((name, PLAIN, f"'{name}' cannot be the name") for name in ("terms", "raw", "train")),
    ],
)
def test_what_cannot_be_used_is_left_out_and_says_why(
    add: Add, capsys: pytest.CaptureFixture[str], name: str, text: str, words: str
) -> None:
    add(name, text)
    assert list(discovery.broken_files()) == [name]
    assert words in discovery.broken_files()[name]
    assert words in capsys.readouterr().err
    with pytest.raises(StudyError, match=f"{name} cannot be used"):
        chosen(name)


@pytest.mark.parametrize(
    ("name", "text", "others"),
    [
        ("simplified", PLAIN, "simplifier"),
        ("another", PLAIN.replace(BODY, f"    logits_name = 'pesf'\n{BODY}"), "pesf"),
    ],
)
def test_two_files_whose_logits_have_one_name_are_both_left_out(
    add: Add, name: str, text: str, others: str
) -> None:
    add(name, text)
    assert set(discovery.broken_files()) == {name, others}
    for reason in discovery.broken_files().values():
        assert f"baselines/{name}.py" in reason
        assert f"baselines/{others}.py" in reason
    with pytest.raises(StudyError, match="means the logits of"):
        chosen({"terms": [{"term": "kd", "teacher": others}]})


def test_no_name_of_the_objective_can_be_a_transformations() -> None:
    objective = objective_on(chosen("kd"), batch_of())
    names = {name for name in dir(objective) if not name.startswith("_")}
    assert names <= discovery.RESERVED_NAMES
    assert discovery.RESERVED_NAMES.isdisjoint(discovery.transformation_classes())


def test_an_unknown_transformation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'pesv' \(did you mean 'pesf'\?\); allowed: .*sim"):
        discovery.transformation_class("pesv")
    with pytest.raises(StudyError, match=r"unknown transformation 'pesv'.*raw, pesf"):
        chosen({"terms": [{"term": "kd", "teacher": "pesv"}]})
    with pytest.raises(StudyError, match="term fitnet reads no teacher logits"):
        chosen({"terms": [{"term": "fitnet", "teacher": "pesf"}]})
    with pytest.raises(
        StudyError, match=r"no term reads the logits of the pesf; .*'teacher: pesf'"
    ):
        chosen({"like": "kd", "transformations": {"pesf": {}}})


# Their place in the objective.


def test_each_term_reads_its_own_logits_and_own_losses_count_once() -> None:
    """0.2·CE + 0.9·KD of raw, adapted and simplified logits and the shadow's, and own losses."""
    names = ("raw", "pesf", "shake", "simplified")
    written = [{"term": "kd", "teacher": name, "cross_entropy": 0.2} for name in names]
    parts = {"pesf": {"weight": 0.3}, "shake": {}, "simplifier": {}}
    batch = batch_of()
    objective = trained(chosen({"terms": written, "transformations": parts}), batch)
    losses = objective(batch)
    labels, student = batch.target.tolist(), batch.student.logits.tolist()
    logits = {name: rule(batch).tolist() for name, rule in objective.transformations.items()}
    raw = batch.teacher.logits.tolist()
    expected = {
        "cross_entropy": nll(student, labels),
        "kd": 16 * kl(raw, student, 4.0),
        "kd on pesf": 16 * kl(logits["pesf"], student, 4.0),
        "kd on shake": 16 * kl(logits["shake"], student, 4.0),
        "kd on simplified": 16 * kl(logits["simplifier"], student, 4.0),
        "pesf": 0.3 * nll(logits["pesf"], labels),
        "shake": 16 * (kl(raw, logits["shake"], 4.0) + kl(student, logits["shake"], 4.0)),
    }
    got = {name: value.item() for name, value in losses.by_term.items()}
    assert got == pytest.approx(expected, rel=1e-9)
    distillation = sum(value for name, value in expected.items() if name.startswith("kd"))
    own = expected["pesf"] + expected["shake"]
    total = 0.2 * expected["cross_entropy"] + 0.9 * distillation + own
    assert losses.total.item() == pytest.approx(total, rel=1e-9)


def test_the_warm_up_of_a_term_leaves_own_losses_as_they_are() -> None:
    method = chosen({"like": "pesf", "settings": {"kd": {"warmup_epochs": 4}}})
    batch = batch_of()
    objective = trained(method, batch)
    losses = objective(batch)
    parts = {name: value.item() for name, value in losses.by_term.items()}
    expected = 0.1 * parts["cross_entropy"] + 0.9 / 4 * parts["kd on pesf"] + parts["pesf"]
    assert losses.total.item() == pytest.approx(expected, rel=1e-9)


def test_diagnostics_start_with_the_parts_name_but_the_simplifiers_are_bare() -> None:
    batch = batch_of()
    names = set(trained(chosen("skd+pesf"), batch)(batch).diagnostics)
    pesf = {name for name in names if name.startswith("pesf/")}
    assert {"pesf/kl_raw_adapted", "pesf/top1_adapted", "pesf/offset"} <= pesf
    assert {"entropy_raw", "kl_softened_simplified"} <= names - pesf
    assert not any("/" in name for name in names - pesf)


class Recorder(Transformation):
    """Adds a buffer that is set by the epoch; records calls."""

    def __init__(self, settings: object, context: object) -> None:
        super().__init__(settings, context)
        self.register_buffer("shift", torch.zeros(()), persistent=False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Tensor:
        return self.scale * batch.teacher.logits + self.shift

    def begin_epoch(self, epoch: int) -> None:
        self.shift.fill_(epoch)

    def partition_problem(self, part_size: int) -> str | None:
        return f"no parts of {part_size}"


def test_the_objective_calls_the_hooks_of_a_transformation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(discovery._discover()[0], "pesf", Recorder)
    batch = batch_of()
    objective = objective_on(chosen("pesf"), batch, epoch=3)
    assert objective.pesf.shift.item() == 3
    assert "no parts of 2" in objective.partition_problem(2)
    assert "pesf.shift" not in objective.state_dict()
    assert set(objective(batch).by_term) == {"cross_entropy", "kd on pesf"}  # no own loss
    assert objective(batch).diagnostics == {}


@pytest.mark.parametrize("name", ["pesf", "simplified"])
def test_standardised_terms_see_z_scores_of_the_transformed_logits(name: str) -> None:
    written = [{"term": "kd", "teacher": name, "standardise": True}]
    batch = batch_of()
    objective = trained(chosen({"terms": written}), batch)
    part = next(iter(objective.transformations.values()))
    teacher, student = (
        standardise_logits(logits).tolist() for logits in (part(batch), batch.student.logits)
    )
    loss = objective(batch).by_term[f"kd on {name}"]
    assert loss.item() == pytest.approx(16 * kl(teacher, student, 4.0), rel=1e-9)


def test_groups_of_the_optimiser_are_student_terms_alike_terms_with_own_then_transformations() -> (
    None
):
    method = chosen(
        {
            "terms": [
                {"term": "kd", "teacher": "pesf"},
                {"term": "kd", "teacher": "simplified"},
                {"term": "vid", "learning_rate_multiplier": 0.5, "weight_decay": 0.0},
                {"term": "fitnet", "layer": 1},
                {"term": "crd"},
            ],
            "transformations": {"pesf": {"weight_decay": 0.25}},
        }
    )
    batch = batch_of()
    objective, student = objective_on(method, batch), nn.Linear(2, 2)
    recipe = Recipe(learning_rate=0.5, weight_decay=0.125)
    optimizer = make_optimizer(recipe, student, objective, fused=False)
    set_learning_rate(optimizer, 0.5)
    groups = optimizer.param_groups
    names = {id(p): name for name, p in objective.named_parameters()}
    parts = [
        {".".join(names.get(id(p), "student").split(".")[:2]) for p in group["params"]}
        for group in groups
    ]
    assert [sorted({part.removesuffix(".adapter") for part in each}) for each in parts] == [
        ["student"],
        ["terms.crd", "terms.fitnet"],
        ["terms.vid"],
        sorted({".".join(name.split(".")[:2]) for name in names.values() if "simplifier" in name}),
        ["pesf"],
    ]
    rates = [float(group["lr"]) for group in groups]
    assert rates == pytest.approx([0.5, 0.5, 0.25, 0.5e-5, 0.5 * 0.0004])
    assert [group["weight_decay"] for group in groups] == [0.125, 0.125, 0.0, 0.125, 0.25]


# What is kept.


def test_state_dict_has_each_transformation_under_its_name() -> None:
    keys = objective_on(chosen("skd+pesf+fitnet"), batch_of()).state_dict()
    layers = ("0", "1", "3")
    pesf = {f"pesf.adapter.{n}.{part}" for n in layers for part in ("weight", "bias")}
    assert {key for key in keys if key.startswith("pesf")} == pesf
    assert {key.split(".")[0] for key in keys} == {"pesf", "simplifier", "terms"}


@pytest.mark.parametrize("method", ["kd", "pesf", "skd", "skd+pesf", "shake+pesf+fitnet"])
def test_the_transformations_are_stored_with_names_if_there_are_several(method: str) -> None:
    objective = trained(chosen(method), batch_of())
    stored, parts = objective.tensors_to_store(), objective.transformations
    state = {
        key: value for key, value in objective.state_dict().items() if key.split(".")[0] in parts
    }
    if len(parts) == 1:
        state = {key.split(".", 1)[1]: value for key, value in state.items()}
    assert stored.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in stored.items())


@pytest.mark.parametrize("method", ["skd", "skd+pesf"])
def test_the_analysis_reads_the_stored_simplifier_alone_or_among_others(method: str) -> None:
    spec, batch = chosen(method), batch_of()
    objective = trained(spec, batch).float()
    stored = save({key: value.clone() for key, value in objective.tensors_to_store().items()})
    logits = batch.teacher.logits.detach().float()
    simplifier: Simplifier = objective.simplifier
    with torch.no_grad():
        expected = simplifier.simplify(logits)
    got = simplified_logits(spec.simplifier, stored, logits.numpy())
    torch.testing.assert_close(torch.from_numpy(got), expected)
