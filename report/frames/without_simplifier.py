"""What a method with SKD amounts to if its simplifier leaves the softened teacher unchanged.

Softening alone changes no loss: softmax(T · log_softmax(z / T) / T') = softmax(z / T'). A term on
the simplified logits is then the same term on the teacher's own logits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Literal

from report.frames.cells import SKD
from skd.study.expansion import Expansion
from skd.study.spec import MethodSpec, TermSpec

KD = "kd"
CROSS_ENTROPY = "cross_entropy"
# The same as the method that SKD is added to; that method twice; or with a term of KD added.
Remainder = Literal["same", "twice", "adds KD"]


def remainders(expansion: Expansion, methods: Collection[str]) -> dict[str, Remainder]:
    """Return what methods are without the effect of their simplifier.

    Args:
        expansion: the study.
        methods: names of methods: ``skd``, compared with KD, or ``skd+X``, compared with X.

    Returns:
        A value for each method that the study defines as one of the three in all pairs.
    """
    found = {method: _of_all_pairs(expansion, method) for method in methods}
    return {method: remainder for method, remainder in found.items() if remainder is not None}


def base_of(method: str) -> str:
    """Return the method that a method with SKD is compared with."""
    return KD if method == SKD else method.removeprefix(f"{SKD}+")


def _of_all_pairs(expansion: Expansion, method: str) -> Remainder | None:
    base = base_of(method)
    if base == method:
        return None
    found = set()
    for teacher, student in expansion.pairs:
        of_pair = expansion.methods_of(teacher, student)
        if method not in of_pair:
            continue
        spec = expansion.cell_of(teacher, student, method).spec.method
        if base in of_pair:
            base_spec = expansion.cell_of(teacher, student, base).spec.method
            found.add(_remainder(spec, base_spec))
        else:  # a study of SKD need not train KD
            is_kd = method == SKD and [name for name, *_ in _distillation(spec).elements()] == [KD]
            found.add("same" if is_kd else None)
    return found.pop() if len(found) == 1 else None


def _remainder(combined: MethodSpec, base: MethodSpec) -> Remainder | None:
    if base.simplifier is not None:
        return None
    ours, theirs = Counter(map(_key, combined.terms)), Counter(map(_key, base.terms))
    if ours == theirs:
        return "same"
    more = _distillation(combined) - _distillation(base)
    if sum(more.values()) != 1 or _distillation(base) - _distillation(combined):
        return None
    (added,) = more
    if added[0] != KD:
        return None
    return "twice" if ours - theirs == more and _distillation(base) == more else "adds KD"


def _distillation(spec: MethodSpec) -> Counter:
    return Counter(_key(term) for term in spec.terms if term.term != CROSS_ENTROPY)


def _key(term: TermSpec) -> tuple:
    """Return what a term computes, apart from the kind of the teacher's logits."""
    settings = {name: value for name, value in term.settings.items() if name != "teacher"}
    return term.term, term.version, repr(sorted(settings.items()))
