"""A study's sheet, changes of it, and the identities of its expansion."""

import copy
from collections.abc import Callable
from typing import Any

from skd.study.expansion import Expansion

SHEET: dict[str, Any] = {
    "title": "A test",
    "dataset": {"name": "synthetic"},
    "recipe": {"epochs": 4, "milestones": [2, 3]},
    "teachers": {
        "big": {"network": "resnet20", "train": {"seed": 0}},
        "wrn_16_2": {"train": {"seed": 0}},
    },
    "pairs": [
        {"teacher": "big", "student": "resnet8"},
        {"teacher": "wrn_16_2", "student": "resnet8"},
        {"teacher": "big", "student": "resnet14"},
    ],
    "methods": ["student", "kd", "skd"],
    "seeds": 2,
}


Change = Callable[[dict[str, Any]], Any]
Ids = dict[tuple[str, int], str]


def put(*path: Any) -> Change:
    """Return a change of a sheet: the last item becomes the value at the path before it."""
    *where, last, value = path

    def change(sheet: dict[str, Any]) -> None:
        for key in where:
            sheet = sheet[key]
        sheet[last] = copy.deepcopy(value)

    return change


def drop(*path: Any) -> Change:
    *where, last = path

    def change(sheet: dict[str, Any]) -> None:
        for key in where:
            sheet = sheet[key]
        del sheet[last]

    return change


def run_ids(expansion: Expansion) -> Ids:
    return {(c.key, seed): run for c in expansion.cells for seed, run in c.runs.items()}


def teacher_ids(expansion: Expansion) -> dict[str, str]:
    return {node.name: node.id for node in expansion.teachers}


def cells_that_differ(first: Expansion, second: Expansion) -> set[str]:
    one, two = run_ids(first), run_ids(second)
    assert one.keys() == two.keys()
    return {key for key, seed in one if one[key, seed] != two[key, seed]}


# Imported teachers.
IMPORT = put("teachers", "big", {"network": "resnet20", "import": {"file": "$SKD_T/big.pth"}})
