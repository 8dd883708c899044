"""The commands for authors of losses and transformations. Torch is imported when they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from skd.common.errors import FAILED
from skd.common.terminal import PlainConsole

if TYPE_CHECKING:
    from skd.authoring.findings import Finding
    from skd.authoring.scaffold import Kind

NewName = Annotated[
    str, typer.Argument(help="the name of the method and of its new file in baselines/")
]


def new_baseline(name: NewName) -> None:
    """Write a working baseline and its test as a start for a new method."""
    _write("term", name)
    print(f"'{name}' is now a method for any study sheet, also in sums: skd+{name}")
    _print_next(name)


def new_transformation(name: NewName) -> None:
    """Write a working transformation of the teacher's logits, and its test.

    A transformation precedes any loss on teacher logits, as SKD's simplifier does.
    """
    _write("transformation", name)
    print(f"'{name}' is now a method for any study sheet: KD on its logits, also in sums")
    print(
        f"Other losses on its logits: {{name: {name}-dkd, terms: [{{term: dkd, teacher: {name}}}]}}"
    )
    _print_next(name)


def check_baseline(
    name: Annotated[
        str,
        typer.Argument(
            help="a loss or transformation in baselines/, or any method or sum, such as skd+kd"
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="check one pair only, and stop at the first problem")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="print the whole traceback of an error")
    ] = False,
) -> None:
    """Check that a baseline meets the contract of all methods, on every architecture family.

    A transformation is checked with KD and with DKD on its logits.
    """
    import torch

    from skd.authoring.contract import check_contract

    torch.set_num_threads(1)
    if _print_findings(name, check_contract(name, quick), traceback):
        raise typer.Exit(FAILED)


def _write(kind: Kind, name: str) -> None:
    from skd.authoring.scaffold import write_skeletons
    from skd.losses.discovery import (
        RESERVED_NAMES,
        logits_names,
        term_classes,
        transformation_classes,
    )
    from skd.losses.methods import method_names

    taken = {*method_names(), *term_classes(), *transformation_classes()}
    reserved = {*RESERVED_NAMES, *logits_names()} if kind == "transformation" else ()
    for path in write_skeletons(kind, name, taken, reserved):
        print(path)


def _print_next(name: str) -> None:
    print(f"Next: skd check-baseline {name} --quick, and pytest tests/baselines/test_{name}.py")


def _print_findings(
    name: str, findings: Iterable[tuple[str, Finding]], whole_tracebacks: bool
) -> int:
    """Print findings and a summary; return the number of problems.

    An error that many checks raise is printed once.
    """
    console = PlainConsole()
    words, errors = Counter[str](), Counter[str]()
    for method, finding in findings:
        style, word = finding.verdict
        words[word] += 1
        if finding.traceback:
            errors[finding.problem] += 1
            if errors[finding.problem] > 1:
                continue
        line = f" {method}: {finding.subject}: {finding.check}"
        console.print(Text.assemble((f"{word:8}", style), line))
        details = finding.problem or finding.refused
        if whole_tracebacks and finding.traceback:
            details = finding.traceback
        for detail in details.splitlines():
            console.print(Text(f"         {detail}"), soft_wrap=True)
    if repeated := sum(errors.values()) - len(errors):
        checks = "one other check" if repeated == 1 else f"{repeated} other checks"
        console.print(f"The same error in {checks}.")
    counts = f"{words['ok']} ok, {words['refused']} refused"
    if broken := words["broken"]:
        hint = "" if whole_tracebacks or not errors else " (--traceback prints whole tracebacks)"
        print(f"{name}: {broken} broken, {counts}{hint}")
    else:
        print(f"{name}: sound: {counts}")
    return broken
