"""The commands for those who add a rule: `skd new-baseline` and `skd check-baseline`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from skd.common.terminal import PlainConsole


def new_baseline(
    name: Annotated[str, typer.Argument(help="of the new file in baselines/, and of the method")],
) -> None:
    """Write a working baseline and its test, to be made into a rule."""
    from skd.authoring.scaffold import write_baseline as write
    from skd.losses.methods import CROSS_ENTROPY, SIMPLIFIER, method_names

    for path in write(name, [*method_names(), CROSS_ENTROPY, SIMPLIFIER]):
        print(path)
    print(f"'{name}' is a method in any study sheet now, and in sums: skd+{name}")
    print(f"Then: skd check-baseline {name}, and pytest tests/baselines/test_{name}.py")


def check_baseline(
    name: Annotated[str, typer.Argument(help="a file of baselines/, or any method or sum")],
) -> None:
    """Try a baseline on every architecture family: does it keep what every method must keep?"""
    import torch

    from skd.authoring.contract import check_contract as check

    torch.set_num_threads(1)
    console, problems = PlainConsole(), 0
    for method, finding in check(name):
        problems += bool(finding.problem)
        style, word = finding.verdict
        said = f" {method}: {finding.subject}: {finding.check}"
        console.print(Text.assemble((f"{word:8}", style), said))
        if said := finding.problem or finding.refused:
            console.print(f"         {said}")
    print(f"{name}: {problems} broken" if problems else f"{name}: sound")
    if problems:
        raise typer.Exit(1)
