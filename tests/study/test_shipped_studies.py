"""The shipped sheets have the published pairs, methods and weights."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torchvision.models import ResNet34_Weights, ResNet50_Weights

from skd.expansion.expand import expand_study
from skd.losses.discovery import term_classes
from skd.study.expansion import Cell, Expansion
from skd.study.published import differences_from_published, published_values
from skd.study.sheet_files import study_names
from skd.study.spec import Recipe

# The reference page's tables: DKD's beta and ReviewKD's weight by pair, "ours" included.
WEIGHTS = {
    ("resnet56", "resnet20"): (2, 0.6),
    ("resnet110", "resnet20"): (2, 1),
    ("resnet110", "resnet32"): (2, 1),
    ("resnet32x4", "resnet8x4"): (8, 5),
    ("wrn_40_2", "wrn_16_2"): (6, 5),
    ("wrn_40_2", "wrn_40_1"): (6, 5),
    ("vgg13", "vgg8"): (6, 5),
    ("vgg13", "MobileNetV2"): (6, 8),
    ("ResNet50", "MobileNetV2"): (8, 30),
    ("ResNet50", "vgg8"): (8, 5),
    ("resnet32x4", "ShuffleV1"): (8, 5),
    ("resnet32x4", "ShuffleV2"): (8, 8),
    ("wrn_40_2", "ShuffleV1"): (8, 5),
}
# Term, weight, teacher; the weight "w" stands for ReviewKD's weight of the pair.
CE, KD = ("cross_entropy", 1.0, "raw"), ("kd", 0.9, "raw")
LITTLE_CE, SKD = ("cross_entropy", 0.1, "raw"), ("kd", 0.9, "simplified")
TEN: dict[str, list[tuple[str, Any, str]]] = {
    "student": [CE],
    "kd": [LITTLE_CE, KD],
    "dkd": [CE, ("dkd", 1.0, "raw")],
    "crd": [CE, ("crd", 0.8, "raw")],
    "reviewkd": [CE, ("reviewkd", "w", "raw")],
    "skd": [LITTLE_CE, SKD],
    "skd+kd": [LITTLE_CE, SKD, KD],
    "skd+dkd": [CE, ("dkd", 1.0, "simplified")],
    "skd+crd": [CE, SKD, ("crd", 0.8, "raw")],
    "skd+reviewkd": [CE, SKD, ("reviewkd", "w", "raw")],
}
WARMED_UP = {"dkd": 20, "reviewkd": 20}

# Digests of all runs and teachers. New options must not change them. An edit of a sheet may.
IDENTITIES = {
    "ablation": "889d5978b031b146",
    "ablation-confirm": "9aa2f492fabf7241",
    "ablation-full": "9554221b826da4ac",
    "ablation-long": "2d8429d7603d7dd3",
    "ablation-screen": "ee5c3ab3195b0c5b",
    "cifar100": "ff3b80d5a98ef7d9",
    "cifar100-published-teachers": "cd0d73510acbaf92",
    "cifar100-small": "dff3eef1c799cab1",
    "demo": "b5a7083c750e395c",
    "demo-choice": "fd7791b8ae329bce",
    "extended": "84566345d0a64593",
    "first-rows": "678758cc83947914",
    "imagenet": "9bea6aef374fe519",
    "public-teacher": "e6303efceb591f98",
    "public-teacher-rest": "b7231169b9363ee9",
    "reviewkd-weights": "45321835d453b0c3",
}

expanded = cache(expand_study)


def settings_of(cell: Cell, term: str) -> dict[str, Any]:
    return next(t.settings for t in cell.spec.method.terms if t.term == term)


@pytest.mark.parametrize("name", ["cifar100", "cifar100-published-teachers"])
def test_cifar100_is_thirteen_pairs_ten_methods_and_five_seeds(name: str) -> None:
    study = expanded(name)
    assert set(study.pairs) == set(WEIGHTS)
    assert list(study.methods) == list(TEN)
    assert study.seeds == (0, 1, 2, 3, 4)
    students = {student for _, student in study.pairs}
    runs = {identity for cell in study.cells for identity in cell.runs.values()}
    assert len(runs) == 13 * 9 * 5 + len(students) * 5 == 630


@pytest.mark.parametrize("pair", WEIGHTS, ids="--".join)
def test_each_cell_has_the_weights_of_its_pair(pair: tuple[str, str]) -> None:
    study, (beta, weight) = expanded("cifar100"), WEIGHTS[pair]
    for method, terms in TEN.items():
        cell = study.cell_of(*pair, method)
        actual = [
            (term.term, term.settings["weight"], term.settings["teacher"])
            for term in cell.spec.method.terms
        ]
        assert sorted(actual) == sorted(
            (t, weight if w == "w" else w, teacher) for t, w, teacher in terms
        )
        assert (cell.spec.method.simplifier is not None) == method.startswith("skd")
        for term in cell.spec.method.terms:
            assert term.settings["warmup_epochs"] == WARMED_UP.get(term.term, 0)
            if term.term == "dkd":
                assert (term.settings["alpha"], term.settings["beta"]) == (1, beta)
            assert term.settings.get("temperature") == {"kd": 4, "dkd": 4, "crd": 0.07}.get(
                term.term
            )


def test_the_published_teachers_study_differs_in_its_teachers_alone() -> None:
    ours, theirs = expanded("cifar100"), expanded("cifar100-published-teachers")
    assert [cell.key for cell in ours.cells] == [cell.key for cell in theirs.cells]
    for one, other in zip(ours.cells, theirs.cells, strict=True):
        assert one.spec.method == other.spec.method
        assert one.spec.recipe == other.spec.recipe
    assert {node.spec.kind for node in ours.teachers} == {"trained"}
    assert {node.spec.kind for node in theirs.teachers} == {"imported"}
    assert "resnet56_vanilla" in theirs.sheet
    assert "beta: 2" in theirs.sheet  # the report shows what it extends, too


def test_extended_has_every_other_rule_with_its_settings_by_pair() -> None:
    study = expanded("extended")
    assert set(study.pairs) == set(WEIGHTS)
    used = {term.term for cell in study.cells for term in cell.spec.method.terms}
    teachers_and_views = {"sftn", "soteacher", "mlkd_two_views"}
    assert used == set(term_classes()) - {"dkd", "reviewkd"} - teachers_and_views
    wttm = settings_of(study.cell_of("resnet32x4", "ShuffleV2", "wttm"), "wttm")
    assert (wttm["exponent"], wttm["weight"]) == (0.4, 16)
    both = study.cell_of("vgg13", "vgg8", "crd-with-kd").spec.method
    assert {t.term: t.settings["weight"] for t in both.terms} == {
        "cross_entropy": 1,
        "crd": 0.8,
        "kd": 1,
    }
    lskd = settings_of(study.cell_of("vgg13", "vgg8", "lskd"), "kd")
    assert (lskd["standardise"], lskd["temperature"], lskd["weight"]) == (True, 2, 9)
    srrl = study.cell_of("resnet32x4", "resnet8x4", "srrl-with-kd").spec.method
    weights = {"cross_entropy": 1, "srrl": 1, "kd": 1}
    assert {t.term: t.settings["weight"] for t in srrl.terms} == weights
    # The student without pre-activations.
    students = {s for t, s in study.pairs if activated(study.cell_of(t, s, "ofd"))}
    assert students == {"MobileNetV2"}


def activated(cell: Cell) -> bool:
    return settings_of(cell, "ofd")["student_features"] == "activated"


def test_the_first_rows_are_runs_of_cifar100() -> None:
    rows, whole = expanded("first-rows"), expanded("cifar100")
    assert rows.pairs == (("resnet56", "resnet20"), ("resnet32x4", "resnet8x4"))
    assert rows.methods == whole.methods
    assert rows.seeds == (0, 1, 2)
    for cell in rows.cells:
        theirs = whole.cell_by_key(cell.key)
        assert cell.runs == {seed: theirs.runs[seed] for seed in rows.seeds}
    assert {node.id for node in rows.teachers} < {node.id for node in whole.teachers}


@pytest.mark.parametrize("part", ["screen", "confirm", "long"])
def test_small_ablations_state_that_their_teacher_saw_validation_images(part: str) -> None:
    study = expanded(f"ablation-{part}")
    assert (study.dataset.split, study.dataset.train_limit) == ("validation", 5000)
    assert [teacher.leaks for teacher in study.teachers] == [True]


@pytest.mark.parametrize("name", ["ablation", "reviewkd-weights"])
def test_what_chooses_settings_never_sees_the_test_set(name: str) -> None:
    study = expanded(name)
    assert study.dataset.split == "validation"
    assert {node.spec.run.dataset.split for node in study.teachers} == {"validation"}
    assert {cell.spec.dataset.split for cell in study.cells} == {"validation"}


def test_the_ablation_has_the_controls_and_sweeps_that_the_reference_asks_for() -> None:
    study = expanded("ablation")
    pair = study.pairs[0]

    def simplifier(method: str) -> dict[str, Any]:
        return study.cell_of(*pair, method).spec.method.simplifier.settings

    default = simplifier("skd")

    def changes(method: str) -> dict[str, Any]:
        return {k: v for k, v in simplifier(method).items() if v != default[k]}

    assert changes("softening-only") == {"trainable": False}
    assert changes("simplifier-only") == {"softening": "scaled", "temperature": 1}
    assert changes("frozen") == {"trainable": False, "output_init": "default"}
    assert changes("not-zero-initialised") == {"output_init": "default"}
    assert changes("axis-classes")["axis"] == "classes"
    assert changes("no-residual")["combination"] == "attention"
    assert [changes(f"heads-{n}")["heads"] for n in (2, 4)] == [2, 4]
    for temperature in (1, 2, 8):
        assert changes(f"T-{temperature}") == {"temperature": temperature}
        kd = settings_of(study.cell_of(*pair, f"T-{temperature}"), "kd")
        assert kd["temperature"] == temperature
    assert default["temperature"] == 4
    weights = {m: settings_of(study.cell_of(*pair, m), "kd")["weight"] for m in WEIGHT_SWEEP}
    assert weights == WEIGHT_SWEEP
    rates = {m: changes(m)["learning_rate_multiplier"] for m in RATE_SWEEP}
    assert rates == RATE_SWEEP


WEIGHT_SWEEP = {"weight-0.5": 0.5, "weight-2": 2, "weights-1-1": 1}
RATE_SWEEP = {f"rate-{text}": float(text) for text in ("0.0001", "0.001", "0.01", "0.1", "1")}


@pytest.mark.parametrize("name", ["demo", "cifar100-small"])
def test_what_a_laptop_can_run_shows_all_ten_methods(name: str) -> None:
    study: Expansion = expanded(name)
    assert study.methods_of(*study.pairs[0]) == list(TEN)
    assert (len(study.pairs), study.seeds) == (1, (0, 1, 2))


def test_the_demos_settings_are_chosen_without_its_test_images_and_seeds() -> None:
    demo, choice = expanded("demo"), expanded("demo-choice")
    assert (demo.dataset.split, choice.dataset.split) == ("test", "validation")
    assert not set(demo.seeds) & set(choice.seeds)
    (taught,), (chosen,) = demo.teachers, choice.teachers
    assert taught.spec.run.seed != chosen.spec.run.seed
    assert taught.spec.run.recipe == chosen.spec.run.recipe
    for method in TEN:
        final, tried = (study.cell_of(*study.pairs[0], method).spec for study in (demo, choice))
        assert (final.method, final.recipe) == (tried.method, tried.recipe)


# Of the pairs, by the reference page: DKD's beta, ReviewKD's weight, the widest map that it fuses.
ON_IMAGENET = {("resnet34", "resnet18"): (0.5, 1, 512), ("resnet50", "MobileNetV1"): (2, 8, 256)}
HALF, IMAGENET_SKD = ("cross_entropy", 0.5, "raw"), ("kd", 0.5, "simplified")
IMAGENET_KD = ("kd", 0.5, "raw")
# Batch size, learning rate, terms.
TEN_ON_IMAGENET: dict[str, tuple[int, float, list[tuple[str, Any, str]]]] = {
    "student": (256, 0.1, [CE]),
    "kd": (512, 0.2, [HALF, IMAGENET_KD]),
    "dkd": (512, 0.2, TEN["dkd"]),
    "crd": (256, 0.1, TEN["crd"]),
    "reviewkd": (256, 0.1, TEN["reviewkd"]),
    "skd": (512, 0.2, [HALF, IMAGENET_SKD]),
    "skd+kd": (512, 0.2, [HALF, IMAGENET_SKD, IMAGENET_KD]),
    "skd+dkd": (512, 0.2, TEN["skd+dkd"]),
    "skd+crd": (256, 0.1, [CE, IMAGENET_SKD, ("crd", 0.8, "raw")]),
    "skd+reviewkd": (256, 0.1, [CE, IMAGENET_SKD, ("reviewkd", "w", "raw")]),
}


@pytest.mark.parametrize("pair", ON_IMAGENET, ids="--".join)
def test_imagenet_has_the_fields_recipes_and_settings(pair: tuple[str, str]) -> None:
    study, (beta, weight, width) = expanded("imagenet"), ON_IMAGENET[pair]
    assert set(study.pairs) == set(ON_IMAGENET)
    assert study.methods_of(*pair) == list(TEN_ON_IMAGENET)
    for method, (batch, rate, terms) in TEN_ON_IMAGENET.items():
        spec = study.cell_of(*pair, method).spec
        assert spec.recipe == Recipe(
            epochs=100,
            batch_size=batch,
            learning_rate=rate,
            milestones=(30, 60, 90),
            momentum=0.9,
            weight_decay=1e-4,
            last_batch="drop",
            bn_batch=batch // 8,
        )
        assert [spec.recipe.partition_problem(count) for count in (1, 2, 4, 8)] == [None] * 4
        assert differences_from_published(spec.dataset, spec.recipe, pair[1], method) == {}
        actual = [(t.term, t.settings["weight"], t.settings["teacher"]) for t in spec.method.terms]
        assert sorted(actual) == sorted(
            (t, weight if w == "w" else w, teacher) for t, w, teacher in terms
        )
        own = {t.term: t.settings for t in spec.method.terms}
        assert {t: s["warmup_epochs"] for t, s in own.items() if s["warmup_epochs"]} == (
            {t: 1 for t in ("dkd", "reviewkd") if t in own}
        )
        assert {own[t]["temperature"] for t in ("kd", "dkd") if t in own} <= {1}
        if "dkd" in own:
            assert (own["dkd"]["alpha"], own["dkd"]["beta"]) == (1, beta)
        if "reviewkd" in own:
            assert own["reviewkd"]["student_features"] == "preactivated"
            assert own["reviewkd"]["mid_width"] == width
        simplifier = spec.method.simplifier
        assert (simplifier is not None) == method.startswith("skd")
        if simplifier is not None:
            own = simplifier.settings
            assert (own["temperature"], own["group"]) == (1, batch // 8)


def test_imagenets_teachers_are_torchvisions_first_weights() -> None:
    study = expanded("imagenet")
    weights = {"resnet34": ResNet34_Weights, "resnet50": ResNet50_Weights}
    assert {node.name for node in study.teachers} == set(weights)
    for node in study.teachers:
        url = weights[node.name].IMAGENET1K_V1.url
        assert node.source.url == url
        assert url.endswith(f"{node.name}-{node.spec.sha256}.pth")
        assert node.spec.network == node.name


def test_imagenet_is_expanded_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKD_DATA", str(tmp_path / "nowhere"))
    study = expand_study("imagenet")
    images = study.images
    assert (images.train_images, images.test_images) == (1_281_167, 50_000)
    assert (images.classes, images.size) == (1000, 224)
    assert len({run for cell in study.cells for run in cell.runs.values()}) == 20 * 3


@pytest.fixture
def public_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pin the SHA-256 of the public ResNet-56: resolving a sheet does not need the file."""
    monkeypatch.setenv("SKD_DATA", str(tmp_path))
    return "f7e590a0e2fe80795aaeb7c5c75f53bd1050a2161c8e53e523ce2835fffd52e2"


def test_public_teacher_is_the_first_row_in_full(public_teacher: str) -> None:
    study, rest = expand_study("public-teacher"), expand_study("public-teacher-rest")
    assert study.methods == ("student", "kd", "dkd", "skd")
    assert {*study.methods, *rest.methods} == set(TEN)
    (node,) = study.teachers
    assert node.spec.sha256 == public_teacher
    assert rest.teachers == study.teachers
    cells = [*study.cells, *rest.cells]
    assert all(len(cell.runs) == 3 for cell in cells)
    assert {cell.spec.recipe for cell in cells} == {Recipe()}
    assert {cell.spec.dataset.train_limit for cell in cells} == {None}
    row = expanded("cifar100")
    for cell in cells:
        assert cell.spec.method == row.cell_of("resnet56", "resnet20", cell.method).spec.method
    alone = expanded("cifar100").cell("resnet20", "student")
    assert study.cell("resnet20", "student").runs.items() <= alone.runs.items()


def test_ablation_full_tries_skd_beside_kd_with_the_same_settings() -> None:
    study = expand_study("ablation-full")
    assert (study.dataset.split, study.seeds) == ("validation", (0, 1))
    assert [node.spec.kind for node in study.teachers] == ["trained"]
    assert not any(node.leaks for node in study.teachers)
    assert {cell.spec.recipe for cell in study.cells} == {Recipe()}
    rates = {
        cell.method: cell.spec.method.simplifier.settings["learning_rate_multiplier"]
        for cell in study.cells
        if cell.spec.method.simplifier
    }
    assert rates == {
        "skd": 0.00001,
        "rate-0.00003": 0.00003,
        "rate-0.0001": 0.0001,
        "anchored-0.1": 0.1,
        "anchored-1": 1,
        "rows-mean-1": 1,
        "rows-added-1": 1,
        "T-2": 0.00001,
        "weights-1-1": 0.00001,
    }
    pair = "resnet56--resnet20"
    for changed in ("T-2", "weights-1-1"):
        own, plain = study.cell(pair, changed), study.cell(pair, f"kd-{changed}")
        for key in ("temperature", "weight"):
            assert settings_of(own, "kd")[key] == settings_of(plain, "kd")[key]
        assert settings_of(own, "cross_entropy") == settings_of(plain, "cross_entropy")
    assert len(study.cells) == len(rates) + 3


@pytest.mark.parametrize("name", IDENTITIES)
def test_new_options_change_no_identity_of_a_shipped_study(name: str) -> None:
    study = expanded(name)
    runs = sorted(identity for cell in study.cells for identity in cell.runs.values())
    names = [*runs, *sorted(node.id for node in study.teachers)]
    assert hashlib.sha256(" ".join(names).encode()).hexdigest()[:16] == IDENTITIES[name]


def test_mlkd_has_two_views_and_its_authors_recipe() -> None:
    study = expanded("mlkd")
    assert {teacher.source is not None for teacher in study.teachers} == {True}
    for teacher, student in study.pairs:
        one, two = (study.cell_of(teacher, student, m) for m in ("mlkd", "mlkd_two_views"))
        assert one.spec.recipe == Recipe()
        assert two.spec.recipe == Recipe(learning_rate=0.025)
        difference = differences_from_published(
            study.dataset, two.spec.recipe, student, "mlkd_two_views"
        )
        assert difference == {}
        assert (student, "mlkd_two_views") in {
            (value.student, value.method) for value in published_values(study.dataset).values()
        }
        assert two.needs == ("strong_view", "teacher_logits")
        assert (one.extra.views, two.extra.views) == (1, 2)


def test_every_shipped_study_is_among_those_tested() -> None:
    tested = {"cifar100", "cifar100-published-teachers", "extended", "ablation", "imagenet"}
    tested |= {"reviewkd-weights", "first-rows", "demo", "demo-choice", "cifar100-small", "mlkd"}
    tested |= {"student-friendly", "student-friendly-small"}
    tested |= {f"ablation-{part}" for part in ("screen", "confirm", "long", "full")}
    tested |= {"public-teacher", "public-teacher-rest"}
    assert set(study_names()) == tested
