"""The work of two processes started by torchrun: FOLDER TEACHERS [--long].

In FOLDER/whole they train each method; in FOLDER/stopped the second one asks to stop after some
steps, and both resume from their checkpoints. With --long they train one longer run in FOLDER/long;
with --cuda on a GPU each.
"""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch

from skd.common.errors import InterruptedRunError
from skd.common.stopping import handle_stop_signals
from skd.store.store import Store
from skd.study.expansion import Expansion
from skd.training.data_parallel import BatchPartition
from skd.training.distributed import Team, join_team
from skd.training.execution import choose_execution
from skd.training.runs import complete_run
from tests.builders import tiny

SETTINGS = {"simplifier": {"group": 8, "learning_rate_multiplier": 1.0}, "crd": {"negatives": 20}}
RECIPE = {"epochs": 3, "milestones": [2], "batch_size": 32, "bn_batch": 8, "last_batch": "drop"}
MIXED = {
    "name": "mixed",
    "like": "skd",
    "recipe": {"augmentation": "trivialaugment", "mixing": "cutmix"},
}
METHODS = ["kd", "skd+crd", "reviewkd", "simkd", "mixed"]
STEPS = 3  # in the second epoch of two steps


def study_of(**changes: object) -> Expansion:
    """Return the tiny study, whose batches can be divided; all its variants share a teacher."""
    own = {"epochs": 2, "milestones": [1], "batch_size": 64, "bn_batch": None, "last_batch": "keep"}
    teacher = {"network": "resnet8", "train": {"seed": 7, "recipe": own}}
    return tiny.study(
        methods=[MIXED if name == "mixed" else name for name in METHODS],
        settings=SETTINGS,
        recipe={**RECIPE, **changes},
        teachers={"teacher": teacher},
    )


def long_study() -> Expansion:
    """Return the study of a run that is long enough to kill a process."""
    return study_of(epochs=20, milestones=[10])


def train(
    study: Expansion,
    method: str,
    results: Path,
    teachers: Path,
    division: BatchPartition,
    **options: Any,
) -> None:
    """Train or resume a run in float64: in float32 rounding grows within few steps."""
    cell = study.cell(tiny.PAIR, method)
    teacher = Store(teachers).teacher(study.teachers[0].id)
    if "--cuda" in sys.argv:
        options["execution"] = choose_execution("cuda", 1)
    settings = tiny.options(partition=division, **options)
    torch.set_default_dtype(torch.float64)
    try:
        complete_run(cell.run(0), Store(results).run(cell.runs[0]), settings, cell.key, teacher)
    finally:
        torch.set_default_dtype(torch.float32)


def work(folder: Path, teachers: Path, processes: Team, stopping: Callable[[], bool]) -> None:
    """Train as the module's docstring describes."""
    division = BatchPartition(processes)
    if "--long" in sys.argv:
        train(long_study(), "skd+crd", folder / "long", teachers, division, should_stop=stopping)
        return
    for method in METHODS:
        train(study_of(), method, folder / "whole", teachers, division)
    for method in METHODS:
        steps = count(1)

        def stopping(steps: count = steps) -> bool:
            return next(steps) == STEPS and processes.rank == 1

        try:
            train(study_of(), method, folder / "stopped", teachers, division, should_stop=stopping)
        except InterruptedRunError:
            train(study_of(), method, folder / "stopped", teachers, division)


if __name__ == "__main__":
    with join_team() as both, handle_stop_signals() as asked:
        work(Path(sys.argv[1]), Path(sys.argv[2]), both, asked)
