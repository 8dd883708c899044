"""The `skd` command: its subcommands and its exit statuses.

A subcommand that needs torch imports it when it runs, so that the others start quickly.
"""

from __future__ import annotations

from collections.abc import Callable

import typer
from typer.core import TyperGroup

from skd.cli.accept import accept
from skd.cli.analyse import analyse
from skd.cli.authoring import check_baseline, new_baseline, new_transformation
from skd.cli.bench import bench
from skd.cli.bench_loader import bench_loader
from skd.cli.check_parts import check_data, check_network
from skd.cli.checkpoints import evaluate, import_teacher
from skd.cli.diff import diff
from skd.cli.error_lines import run_command
from skd.cli.export import export
from skd.cli.job import job
from skd.cli.plan import plan
from skd.cli.provenance import merge, show
from skd.cli.results import results_
from skd.cli.status import cancel, status
from skd.cli.study import expand, list_
from skd.cli.teacher_views import teacher_views
from skd.cli.train import teacher, train
from skd.cli.tune_kernels import tune_kernels
from skd.common.errors import (
    FAILED,
    INTERRUPTED,
    TIME_UP,
    USAGE,
    InterruptedRunError,
    RunFailedError,
    SkdError,
    TimeUpError,
)

# The subcommands by their heading in `skd --help`.
COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Train": {
        "train": train,
        "teacher": teacher,
        "import-teacher": import_teacher,
        "teacher-views": teacher_views,
        "cancel": cancel,
    },
    "Look": {
        "status": status,
        "results": results_,
        "show": show,
        "evaluate": evaluate,
        "export": export,
        "analyse": analyse,
        "diff": diff,
    },
    "Plan": {"list": list_, "expand": expand, "plan": plan},
    "Extend": {
        "new-baseline": new_baseline,
        "new-transformation": new_transformation,
        "check-baseline": check_baseline,
        "check-network": check_network,
        "check-data": check_data,
        "accept": accept,
        "merge": merge,
    },
    "Benchmark": {"bench": bench, "bench-loader": bench_loader, "tune-kernels": tune_kernels},
}


class GroupsLast(TyperGroup):
    """The commands in the order of their registration; typer puts groups of commands first."""

    def list_commands(self, context: typer.Context) -> list[str]:
        """Return the commands' names."""
        return sorted(
            super().list_commands(context),
            key=lambda name: isinstance(self.commands[name], TyperGroup),
        )


app = typer.Typer(
    cls=GroupsLast,
    help="Train and compare Student-friendly Knowledge Distillation (SKD) and its baselines.",
    rich_markup_mode="markdown",  # fills paragraphs and leaves brackets in a text as they are
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
app.add_typer(job, name="job", rich_help_panel="Workflow")


def main() -> None:
    """Run the command line and print expected errors as one line instead of a traceback."""
    run_command("skd", app, _exit_status)


def _exit_status(error: SkdError) -> int:
    """Return the exit status for an error."""
    statuses = {TimeUpError: TIME_UP, InterruptedRunError: INTERRUPTED, RunFailedError: FAILED}
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), USAGE)
