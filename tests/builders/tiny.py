"""Studies so small that a run takes a second, and ways to run them."""

from pathlib import Path
from typing import Any

from skd.expansion.expand import expand_sheet
from skd.store.records import Record
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.study.sheet import Sheet
from skd.training.execution import choose_execution
from skd.training.runs import RunOptions, complete_run
from skd.training.teacher_setup import train_teacher

PAIR = "teacher--resnet8"
SHEET = {
    "title": "tiny",
    "dataset": {"name": "digits", "train_limit": 80},  # two steps an epoch, the last of 16
    "recipe": {"epochs": 3, "milestones": [2]},
    "teachers": {
        "teacher": {
            "network": "resnet8",
            "train": {"seed": 7, "recipe": {"epochs": 2, "milestones": []}},
        }
    },
    "pairs": [{"teacher": "teacher", "student": "resnet8"}],
    "methods": ["student", "kd", "skd", "skd+kd"],
    "seeds": 2,
}
# The defaults, written out: no run of the tests is as long.
LONG = {
    "dkd": {"warmup_epochs": 20},
    "reviewkd": {"warmup_epochs": 20},
    "ctkd": {"curriculum_epochs": 10},
}


def study(**changes: Any) -> Expansion:
    """Expand the tiny sheet with some keys replaced."""
    own = changes.pop("settings", {})
    settings = {name: {**LONG.get(name, {}), **own.get(name, {})} for name in {**LONG, **own}}
    sheet = {**SHEET, "settings": settings, **changes}
    return expand_sheet(Sheet.model_validate(sheet), study="tiny")


def options(**changes: Any) -> RunOptions:
    """Return options for one CPU thread and a checkpoint every epoch."""
    return RunOptions(
        **{"execution": choose_execution("cpu", 1), "checkpoint_seconds": 0.0, **changes}
    )


def run(expansion: Expansion, results: Path, method: str, seed: int = 0, **changes: Any) -> Record:
    """Train one run of the tiny pair, its teacher first."""
    store = Store(results)
    pair = "resnet8" if method == "student" else PAIR
    cell = expansion.cell(pair, method)
    teacher = None
    if cell.teacher:
        node = expansion.teacher(cell.teacher)
        teacher = store.teacher(node.id)
        train_teacher(node.spec, teacher, options(), "teacher")
    entry = store.run(cell.runs[seed])
    return complete_run(cell.run(seed), entry, options(**changes), cell.key, teacher)


def numbers(record: Record) -> dict[str, Any]:
    """Return the numbers of a record that must repeat bit for bit: all but time and place."""
    epochs = [epoch.model_dump(exclude={"seconds", "images_per_second"}) for epoch in record.epochs]
    return {
        "epochs": epochs,
        "last": record.last,
        "best": record.best,
        "files": record.files,
        "collapse": record.collapse,
    }
