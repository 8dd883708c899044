"""Our side of `skd bench`: variants and lanes, built one after the other in one process."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from benchmarks.cases import SideOptions, select_cases
from benchmarks.sides import skd_side
from skd.common.errors import UnfitError
from tests.builders import tiny


def options(results: Path, variant: str = "recorded", lanes: int | None = None, **changes: str):
    values = {"variant": variant, "lanes": lanes, **changes}
    return SideOptions(device="cpu", threads=1, results=results, **values)


def weights(side: skd_side.SkdSide, lane: int = 0) -> dict[str, torch.Tensor]:
    return side.lanes[lane].training.student.state_dict()


@pytest.mark.parametrize("teacher", ["auto", "live"])
def test_variants_are_built_one_after_the_other(teacher: str, tmp_path: Path) -> None:
    case = select_cases(tiny.study(), methods=["kd"])[0]
    side = skd_side.build(case, options(tmp_path, teacher=teacher))
    description = side.describe()
    assert description["teacher"] == ("views" if teacher == "auto" else "live")
    assert (description["lanes"], description["step"], description["choice"]) == (
        1,
        "fast",
        "the product's default",
    )
    for _ in range(3):  # of two an epoch
        side.step()
    side.evaluate()
    alone, training = weights(side), weakref.ref(side.lanes[0].training)

    side.rebuild(options(tmp_path, "recorded", 2, teacher=teacher))
    assert training() is None
    for _ in range(3):
        side.step()
    assert all(torch.equal(value, weights(side)[name]) for name, value in alone.items())
    assert any(not torch.equal(value, weights(side, 1)[name]) for name, value in alone.items())

    with pytest.raises(UnfitError, match="on a GPU only"):
        side.rebuild(options(tmp_path, "kernels", teacher=teacher))
    side.rebuild(options(tmp_path, "eager-bfloat16", teacher=teacher))
    description = side.describe()
    assert (description["lanes"], description["step"], description["precision"]) == (
        1,
        "eager",
        "bfloat16",
    )
    assert description["choice"] is description["compiled"] is None
    side.step()
    side.evaluate()


def test_a_method_without_a_teacher_has_none(tmp_path: Path) -> None:
    case = select_cases(tiny.study(), methods=["student"])[0]
    side = skd_side.build(case, options(tmp_path, lanes=2))
    side.step()
    assert (side.describe()["teacher"], side.describe()["lanes"]) == ("none", 2)


@pytest.mark.slow
def test_passes_can_be_compiled(tmp_path: Path) -> None:
    case = select_cases(tiny.study(), methods=["kd"])[0]
    side = skd_side.build(case, options(tmp_path, "compiled"))
    side.step()
    assert side.describe()["compiled"] == "yes"
