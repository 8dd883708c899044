"""The commands `skd check-network` and `skd check-data`. Torch is imported when they run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from skd.common.errors import FAILED, UnknownNameError
from skd.common.project import ROOT
from skd.common.terminal import PlainConsole

if TYPE_CHECKING:
    from skd.authoring.check_results import CheckResult


def check_network(
    network: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME", help="a network's name, or a Python file that defines NETWORKS"
        ),
    ],
    methods: Annotated[
        bool,
        typer.Option(help="also list which methods fit the network, with others of every family"),
    ] = True,
) -> None:
    """Check that a network works with this suite: outputs and parts, training, methods that fit.

    A file outside skd/models is checked too; studies find it when it is in that folder.
    """
    import torch

    from skd.authoring.network_checks import check_fitting_methods, check_network_contract
    from skd.models import check_network as check_name
    from skd.models import family_networks, networks_of_file

    torch.set_num_threads(1)
    folder, file = ROOT / "skd" / "models", Path(network)
    with contextlib.ExitStack() as stack:
        names: tuple[str, ...] = (network,)
        if file.suffix == ".py":
            if file.resolve().parent == folder and file.is_file():
                names = family_networks(file.stem)
                if not names:
                    raise UnknownNameError("family of networks", file.stem, _modules(folder))
            else:
                names = stack.enter_context(networks_of_file(file))
                _say_where(file, folder)
        problems = 0
        for name in names:
            check_name(name)
            problems += _print_results(name, check_network_contract(name))
            if methods:
                _print_results(f"{name} fits", check_fitting_methods(name))
    if problems:
        raise typer.Exit(FAILED)


def check_data(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME",
            help="a data set's name, or a Python file that defines FACTS and load",
        ),
    ],
) -> None:
    """Check that a data set works with this suite: its facts, values, labels and views.

    A file outside skd/data is checked too; studies find it when it is in that folder.
    """
    import torch

    from skd.authoring.data_checks import check_data_contract
    from skd.data import dataset_of_file

    torch.set_num_threads(1)
    folder, file = ROOT / "skd" / "data", Path(dataset)
    with contextlib.ExitStack() as stack:
        name = dataset
        if file.suffix == ".py":
            name = file.stem
            if file.resolve().parent != folder:
                name = stack.enter_context(dataset_of_file(file))
                _say_where(file, folder)
        if _print_results(name, check_data_contract(name)):
            raise typer.Exit(FAILED)


def _print_results(name: str, results: Iterable[CheckResult]) -> int:
    """Print a line for each result and a last one; return the number of problems."""
    console, problems = PlainConsole(), 0
    for result in results:
        problems += bool(result.problem)
        style, word = result.verdict
        note = f": {result.note}" if result.note else ""
        console.print(Text.assemble((f"{word:8}", style), f" {name}: {result.check}{note}"))
        if result.problem:
            console.print(Text(f"         {result.problem}"))
    print(f"{name}: {problems} broken" if problems else f"{name}: sound")
    return problems


def _say_where(file: Path, folder: Path) -> None:
    print(
        f"{file} is checked in place; put it into {folder.relative_to(ROOT)}/ to use it in studies"
    )


def _modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py"))
