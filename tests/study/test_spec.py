"""Specs and identities: changes that change a run's identity, and changes that do not."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from skd.common.frozen import FrozenModel, added_later, canonical, digest
from skd.losses.discovery import term_class
from skd.losses.methods import resolve_method
from skd.study.sheet import SheetMethod
from skd.study.spec import (
    DatasetSpec,
    ImportedTeacher,
    MethodSpec,
    Recipe,
    RunSpec,
    SimplifierSpec,
    TermSpec,
    TrainedTeacher,
    TransformationSpec,
)

CE = TermSpec(term="cross_entropy", version=1, settings={"weight": 0.1})
KD = TermSpec(term="kd", version=1, settings={"weight": 0.9, "temperature": 4.0})
TEACHER_RUN = RunSpec(
    dataset=DatasetSpec(name="cifar100"),
    network="resnet56",
    method=MethodSpec(terms=(CE,)),
    recipe=Recipe(),
    seed=0,
)
IMPORTED = ImportedTeacher(
    network="resnet56", dataset=DatasetSpec(name="cifar100"), sha256="0" * 64
)
FULL = RunSpec(
    dataset=DatasetSpec(name="cifar100", train_limit=500),
    network="resnet20",
    teacher=TrainedTeacher(run=TEACHER_RUN),
    method=MethodSpec(
        terms=(CE, KD), simplifier=SimplifierSpec(version=1, settings={"temperature": 4.0})
    ),
    recipe=Recipe(epochs=12, milestones=(7, 9, 11)),
    seed=3,
)

# For every field, another value than FULL's. A new field must be added here.
RECIPE_CHANGES = {
    "epochs": 13,
    "batch_size": 32,
    "learning_rate": 0.1,
    "milestones": (7, 9),
    "learning_rate_decay": 0.2,
    "momentum": 0.0,
    "nesterov": True,
    "weight_decay": 1e-4,
    "last_batch": "drop",
    "bn_batch": 32,
    "optimizer": "adamw",
    "betas": (0.9, 0.95),
    "eps": 1e-6,
    "schedule": "cosine",
    "minimum_learning_rate": 1e-5,
    "warmup_epochs": 2,
    "augmentation": "randaugment",
    "randaugment_operations": 3,
    "randaugment_magnitude": 5,
    "mixing": "cutmix",
    "mixing_alpha": 0.2,
}
ELSEWHERE = {"folder"}  # of photos alone: tests/data/test_photo_folders.py
DATASET_CHANGES = {"name": "digits", "split": "validation", "train_limit": None}
TERM_CHANGES = {"term": "dkd", "version": 2, "settings": {"weight": 0.9, "temperature": 5.0}}
SIMPLIFIER_CHANGES = {"version": 2, "settings": {"temperature": 5.0}}
METHOD_CHANGES = {
    "terms": (CE,),
    "simplifier": None,
    "other_transformations": (TransformationSpec(name="adapter", version=1, settings={}),),
}
IMPORTED_CHANGES = {
    "network": "resnet110",
    "dataset": DatasetSpec(name="digits"),
    "sha256": "1" * 64,
}
RUN_CHANGES = {
    "dataset": DatasetSpec(name="digits"),
    "network": "resnet8",
    "teacher": None,
    "method": MethodSpec(terms=(CE,)),
    "recipe": Recipe(),
    "seed": 4,
    "partner": "resnet8",
}


def changed(model: FrozenModel, name: str, value: Any) -> Any:
    """Rebuild, and so validate, a model with one field changed."""
    data = {key: getattr(model, key) for key in type(model).model_fields}
    assert data[name] != value, "the test's change is none"
    return type(model)(**{**data, name: value})


def from_json(model: FrozenModel) -> Any:
    """Write a model to JSON and read it back."""
    return type(model).restore(json.loads(json.dumps(canonical(model))))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (FULL, RUN_CHANGES),
        (FULL.recipe, RECIPE_CHANGES),
        (FULL.dataset, DATASET_CHANGES),
        (FULL.method, METHOD_CHANGES),
        (KD, TERM_CHANGES),
        (FULL.method.simplifier, SIMPLIFIER_CHANGES),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, FrozenModel) else "",
)
def test_every_single_field_changes_the_identity(
    model: FrozenModel, changes: dict[str, Any]
) -> None:
    fields = set(type(model).model_fields) - ELSEWHERE
    assert set(changes) == fields, "a field has no change in this test"

    def run(part: Any) -> RunSpec:
        match part:
            case RunSpec():
                return part
            case Recipe():
                return changed(FULL, "recipe", part) if part != FULL.recipe else FULL
            case DatasetSpec():
                return changed(FULL, "dataset", part) if part != FULL.dataset else FULL
            case MethodSpec():
                return changed(FULL, "method", part) if part != FULL.method else FULL
            case TermSpec():
                return run(MethodSpec(terms=(CE, part), simplifier=FULL.method.simplifier))
            case SimplifierSpec():
                return run(MethodSpec(terms=(CE, KD), simplifier=part))
        raise AssertionError(part)

    assert run(model).identity == FULL.identity
    identities = [run(changed(model, name, value)).identity for name, value in changes.items()]
    assert len({FULL.identity, *identities}) == 1 + len(changes)


def test_order_and_number_of_terms_decide_the_identity() -> None:
    swapped = changed(FULL, "method", changed(FULL.method, "terms", (KD, CE)))
    assert swapped.identity != FULL.identity


def test_key_order_does_not_change_the_identity() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(item) for key, item in reversed(value.items())}
        return [turned(item) for item in value] if isinstance(value, list) else value

    data = canonical(FULL)
    assert list(turned(data)) != list(data)
    assert RunSpec.model_validate(turned(data)).identity == FULL.identity


def test_a_written_out_default_does_not_change_the_identity() -> None:
    short = {"epochs": 12, "milestones": [7, 9, 11]}
    long = {**short, "batch_size": 64, "momentum": 0.9, "nesterov": False}
    assert (
        changed(FULL, "seed", 5).identity
        == RunSpec.model_validate({**canonical(FULL), "seed": 5, "recipe": long}).identity
    )
    assert digest(canonical(Recipe(**short))) == digest(canonical(Recipe(**long)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"epochs": 300}, {"epochs": 300.0}),
        ({"weight_decay": 5e-4}, {"weight_decay": "5e-4"}),  # what YAML 1.1 makes of 5e-4
    ],
)
def test_a_numbers_spelling_does_not_change_the_identity(first: dict, second: dict) -> None:
    assert digest(canonical(Recipe(**first))) == digest(canonical(Recipe(**second)))


@pytest.mark.parametrize("spelling", [4, "4", "4e0"])
def test_a_settings_spelling_does_not_change_a_resolved_method(spelling: Any) -> None:
    method = SheetMethod(name="skd")

    def resolved(temperature: Any) -> MethodSpec:
        values = {"temperature": temperature}
        return resolve_method(method, {"kd": values, "simplifier": values})

    plain, other = digest(canonical(resolved(4.0))), digest(canonical(resolved(spelling)))
    assert plain == other != digest(canonical(resolved(4.5)))


def test_a_terms_version_and_settings_change_a_resolved_method(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolved(settings: dict[str, Any]) -> str:
        return digest(canonical(resolve_method(SheetMethod(name="kd"), settings)))

    before = resolved({})
    assert resolved({"kd": {"temperature": 4.5}}) != before
    monkeypatch.setattr(term_class("kd"), "version", 2)
    assert resolved({}) != before


def test_a_student_depends_on_how_its_teacher_was_trained() -> None:
    other = changed(TEACHER_RUN, "seed", 1)
    taught = changed(FULL, "teacher", TrainedTeacher(run=other))
    assert taught.identity != FULL.identity
    assert TrainedTeacher(run=other).identity == other.identity


@pytest.mark.parametrize("name", IMPORTED_CHANGES)
def test_a_student_depends_on_its_imported_teachers_content(name: str) -> None:
    assert {*IMPORTED_CHANGES, "kind"} == set(ImportedTeacher.model_fields)
    first = changed(FULL, "teacher", IMPORTED)
    second = changed(FULL, "teacher", changed(IMPORTED, name, IMPORTED_CHANGES[name]))
    assert first.identity != second.identity
    assert FULL.identity not in (first.identity, second.identity)


def test_golden_identities() -> None:
    # A change of these values retrains all existing runs: make it only on purpose.
    assert TEACHER_RUN.identity == "dfecfc3d6fb6075c"
    assert IMPORTED.identity == "21cacb6c929dd839"
    assert FULL.identity == "75ca17d481ceddd0"


class Old(FrozenModel):
    a: int = 1


class New(FrozenModel):
    a: int = 1
    b: str = added_later("new", neutral="old")


class OldOuter(FrozenModel):
    inner: Old
    more: tuple[Old, ...] = ()
    named: dict[str, Old] = Field(default_factory=dict)


class NewOuter(FrozenModel):
    inner: New
    more: tuple[New, ...] = ()
    named: dict[str, New] = Field(default_factory=dict)


def test_the_neutral_value_of_an_added_field_keeps_the_identity() -> None:
    assert canonical(New(b="old")) == canonical(Old()) == {"a": 1}
    nested = NewOuter(inner=New(b="old"), more=(New(b="old"),), named={"x": New(b="old")})
    before = OldOuter(inner=Old(), more=(Old(),), named={"x": Old()})
    assert digest(canonical(nested)) == digest(canonical(before))


def test_another_value_of_an_added_field_changes_the_identity() -> None:
    identities = {digest(canonical(model)) for model in (Old(), New(), New(b="newer"))}
    assert len(identities) == 3


def test_restore_gives_what_is_lacking_its_neutral_value_not_its_default() -> None:
    assert New().b == New.model_validate({"a": 1}).b == "new"
    assert New.restore({"a": 1}).b == "old"
    assert New.restore({"a": 1, "b": "newer"}).b == "newer"
    nested = NewOuter.restore(
        {"inner": {"a": 1}, "more": [{"a": 2}, {"b": "new"}], "named": {"x": {"a": 3}}}
    )
    assert nested.inner.b == nested.more[0].b == nested.named["x"].b == "old"
    assert nested.more[1].b == "new"
    assert NewOuter(inner={"a": 1}).inner.b == "new"


recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 4096),
    learning_rate=st.floats(1e-9, 1e9),
    milestones=st.sets(st.integers(1, 1000), max_size=5).map(lambda found: tuple(sorted(found))),
    learning_rate_decay=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    momentum=st.floats(0, 1),
    nesterov=st.booleans(),
    weight_decay=st.floats(0, allow_infinity=False),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    eps=st.floats(1e-12, 1),
    schedule=st.sampled_from(["steps", "cosine"]),
    minimum_learning_rate=st.floats(0, 1),
    warmup_epochs=st.integers(0, 100),
)
teachers = st.sampled_from([None, IMPORTED, TrainedTeacher(run=TEACHER_RUN)])


@settings(max_examples=100, deadline=None)
@given(recipe=recipes, teacher=teachers, seed=st.integers(0, 2**31))
def test_a_stored_spec_is_restored_as_it_was(recipe: Recipe, teacher: Any, seed: int) -> None:
    spec = RunSpec(
        dataset=FULL.dataset,
        network="resnet8",
        teacher=teacher,
        method=FULL.method,
        recipe=recipe,
        seed=seed,
    )
    assert from_json(spec) == spec
    assert from_json(spec).identity == spec.identity


@settings(max_examples=100, deadline=None)
@given(first=recipes, second=recipes)
def test_equal_identities_mean_equal_recipes(first: Recipe, second: Recipe) -> None:
    assert (digest(canonical(first)) == digest(canonical(second))) == (first == second)


def test_an_unknown_key_is_refused_with_the_near_match_and_the_allowed_ones() -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe(epoch=3)
    message = str(caught.value)
    assert "unknown key 'epoch' (did you mean 'epochs'?)" in message
    assert all(name in message for name in Recipe.model_fields)


@pytest.mark.parametrize("model", [FULL, FULL.recipe, FULL.dataset, IMPORTED, KD])
def test_specs_are_frozen(model: FrozenModel) -> None:
    name = next(iter(type(model).model_fields))
    with pytest.raises(ValidationError):
        setattr(model, name, getattr(model, name))


@pytest.mark.parametrize(
    "name", ["learning_rate", "learning_rate_decay", "momentum", "weight_decay"]
)
@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_numbers_that_mean_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Recipe(**{name: value})


def test_infinite_numbers_are_refused() -> None:
    # Accepted values would end in a traceback when the identity is computed.
    names = ["learning_rate", "learning_rate_decay", "momentum", "weight_decay"]
    for name in names:
        with pytest.raises(ValidationError, match=name):
            Recipe(**{name: math.inf})


def test_the_identity_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"x": math.nan})


@pytest.mark.parametrize("milestones", [(9, 7), (7, 7, 9), (0, 3)])
def test_milestones_must_rise_from_one(milestones: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=r"milestones"):
        Recipe(epochs=12, milestones=milestones)
