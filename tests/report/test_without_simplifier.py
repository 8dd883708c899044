"""What methods with SKD are without an effect of their simplifier."""

import pytest

from report.frames.without_simplifier import remainders
from skd.study.expansion import Expansion
from skd.study.spec import MethodSpec, TermSpec
from tests.builders.reported_study import CE, DKD, KD, SKD, make_study

CRD = TermSpec(term="crd", version=1, settings={"weight": 0.8})
CE_OF_KD = TermSpec(term="cross_entropy", version=1, settings={"weight": 0.1})


def on_simplified(*terms: TermSpec) -> MethodSpec:
    """Return a method whose named terms are on simplified logits; others are as they are."""
    changed = [
        term.model_copy(update={"settings": {**term.settings, "teacher": "simplified"}})
        if term.term in ("kd", "dkd")
        else term
        for term in terms
    ]
    return MethodSpec(terms=tuple(changed), simplifier=SKD.simplifier)


def study_of(**methods: MethodSpec) -> Expansion:
    """Return a study with these methods; underscores stand for plus signs."""
    specs = {name.replace("_", "+"): spec for name, spec in methods.items()}
    study = make_study()
    (teacher, student), *_ = study.pairs
    template = next(cell for cell in study.cells if cell.method == "kd")  # caches no cells
    cells = tuple(
        template.model_copy(
            update={"method": name, "spec": template.spec.model_copy(update={"method": spec})}
        )
        for name, spec in specs.items()
    )
    pairs = ((teacher, student),)
    return study.model_copy(update={"cells": cells, "methods": tuple(specs), "pairs": pairs})


WEAK = KD.model_copy(update={"settings": {**KD.settings, "weight": 0.5}})
BASES = {
    "kd": MethodSpec(terms=(CE_OF_KD, KD)),
    "dkd": MethodSpec(terms=(CE, DKD)),
    "crd": MethodSpec(terms=(CE, CRD)),
}


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("skd", on_simplified(CE_OF_KD, KD), "same"),
        ("skd", on_simplified(CE_OF_KD, WEAK), None),
        ("skd_kd", MethodSpec(terms=(CE_OF_KD, KD, SKD.terms[1]), simplifier=SKD.simplifier),
         "twice"),
        ("skd_kd", on_simplified(CE, KD, KD), "adds KD"),  # another cross-entropy
        ("skd_dkd", on_simplified(CE, DKD), "same"),
        ("skd_dkd", on_simplified(CE, DKD, KD), "adds KD"),
        ("skd_crd", on_simplified(CE, KD, CRD), "adds KD"),
        ("skd_crd", on_simplified(CE, DKD, CRD), None),
        ("skd_crd", on_simplified(CE, KD), None),  # without the base's term
        ("other", on_simplified(CE_OF_KD, KD), None),
    ],
)  # fmt: skip
def test_one_method(name: str, spec: MethodSpec, expected: str | None) -> None:
    study = study_of(**BASES, **{name: spec})
    method = name.replace("_", "+")
    assert remainders(study, [method]) == ({method: expected} if expected else {})


def test_skd_is_kd_also_in_a_study_without_kd() -> None:
    assert remainders(study_of(skd=on_simplified(CE, KD)), ["skd"]) == {"skd": "same"}
    assert remainders(study_of(skd=on_simplified(CE, DKD)), ["skd"]) == {}
    assert remainders(study_of(skd_crd=on_simplified(CE, KD, CRD)), ["skd+crd"]) == {}
