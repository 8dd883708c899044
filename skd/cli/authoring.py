"""The commands `skd new-baseline` and `skd check-baseline`. Torch is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from skd.common.errors import FAILED
from skd.common.terminal import PlainConsole


def new_baseline(
    name: Annotated[
        str, typer.Argument(help="the name of the method and of its new file in baselines/")
    ],
) -> None:
    """Write a working baseline and its test as a start for a new method."""
    from skd.authoring.scaffold import write_baseline
    from skd.losses.methods import CROSS_ENTROPY, SIMPLIFIER, method_names

    for path in write_baseline(name, [*method_names(), CROSS_ENTROPY, SIMPLIFIER]):
        print(path)
    print(f"'{name}' is now a method for any study sheet, also in sums: skd+{name}")
    print(f"Next: skd check-baseline {name}, and pytest tests/baselines/test_{name}.py")


def check_baseline(
    name: Annotated[
        str, typer.Argument(help="a file of baselines/, or any method or sum of methods")
    ],
) -> None:
    """Check that a baseline meets the contract of all methods, on every architecture family."""
    import torch

    from skd.authoring.contract import check_contract

    torch.set_num_threads(1)
    console, problems = PlainConsole(), 0
    for method, finding in check_contract(name):
        problems += bool(finding.problem)
        style, word = finding.verdict
        line = f" {method}: {finding.subject}: {finding.check}"
        console.print(Text.assemble((f"{word:8}", style), line))
        if details := finding.problem or finding.refused:
            console.print(f"         {details}")
    print(f"{name}: {problems} broken" if problems else f"{name}: sound")
    if problems:
        raise typer.Exit(FAILED)
