"""Arguments and options that several commands share. Imports no torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from skd.common import bounds
from skd.common.choices import (
    FastPathMode,
    Precision,
    RunLog,
    StepMode,
    TeacherSourceChoice,
    ViewsOutput,
    ViewsPrecision,
)
from skd.common.files import check_writable, expand_home

DEFAULT_RESULTS = Path("results")
PAIR_HELP = "a pair of the study: TEACHER--STUDENT, or STUDENT for methods without a teacher"

# Headings of groups of options in --help.
MACHINE = "The machine"
COMPUTATION = "How a run is computed (fixed at its first step)"
RESUMING = "Starting, stopping and resuming"
OUTPUT = "Output"

IfLeased = Literal["wait", "refuse"]
# typer takes no list of a Literal; these enumerations have the same values.
ViewsOutputChoice = StrEnum("ViewsOutputChoice", {name: name for name in get_args(ViewsOutput)})
PrecisionChoice = StrEnum("PrecisionChoice", {name: name for name in get_args(Precision)})


def check_writable_option(path: Path | None) -> Path | None:
    """Check in an option's callback that a file can be written, before any work starts.

    Raises:
        UnwritableError: the file cannot be written.
    """
    if path is not None:
        check_writable(path)
    return path


def expand_home_option(path: Path | None) -> Path | None:
    """Return an option's path with ``~`` expanded; ``None`` if it is not given."""
    return path and expand_home(path)


# What a command works on.
StudyArgument = Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")]
TeacherArgument = Annotated[str, typer.Argument(help="the teacher's name in the study sheet")]
PairArgument = Annotated[str | None, typer.Argument(help=f"{PAIR_HELP} (default: the whole study)")]
MethodsArgument = Annotated[
    list[str] | None,
    typer.Argument(help="the methods' names in the study sheet (default: all of the pair)"),
]
RequiredPairArgument = Annotated[str, typer.Argument(help=PAIR_HELP)]
RequiredMethodsArgument = Annotated[
    list[str], typer.Argument(help="the methods' names in the study sheet")
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="a checkpoint file: .pth, .pt or .safetensors")
]
NetworkOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="the network's architecture; `skd list networks` lists them"),
]
DatasetOption = Annotated[
    str, typer.Option(metavar="NAME", help="the data set's name; `skd list datasets` lists them")
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        callback=expand_home,
        metavar="FOLDER",
        help="folder that contains runs, teachers and reports",
    ),
]

# The machine.
DeviceOption = Annotated[
    str,
    typer.Option(
        rich_help_panel=MACHINE,
        metavar="DEVICE",
        help="device that computes: auto, cpu or cuda; auto uses a GPU if there is one",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=bounds.check_threads,
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of CPU threads (default: PyTorch's own choice)",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        callback=bounds.check_workers,
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of processes that decode photos (default: one per core on a GPU, else 0)",
    ),
]
CoresOption = Annotated[
    int,
    typer.Option(
        min=1,
        callback=bounds.check_threads,
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of CPU cores of the job, which its runs share",
    ),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        min=1,
        callback=bounds.check_processes,
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of processes that train each run together, each on its own GPU",
    ),
]
SideBySideOption = Annotated[
    str,
    typer.Option(
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of runs that share a device, or auto; auto: one on a CPU, on a GPU as many "
        "as its memory holds and as raise its throughput",
    ),
]
LanesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=bounds.check_lanes,
        rich_help_panel=MACHINE,
        metavar="N",
        help="number of runs that this process trains side by side (default: 1; for a whole study "
        "on a GPU, as many as its memory holds and as raise its throughput)",
    ),
]
SharingOption = Annotated[
    int,
    typer.Option(hidden=True, min=1, help="number of runs that share the device, for the record"),
]

# How a run is computed. These are fixed at a run's first step.
StepOption = Annotated[
    StepMode,
    typer.Option(
        rich_help_panel=COMPUTATION,
        help="how runs that start now compute a training step; fast: channels-last layout, fused "
        "SGD and, on a GPU, a CUDA graph; eager: the same without the CUDA graph; plain: none of "
        "these",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        rich_help_panel=COMPUTATION,
        help="precision of forward passes and losses in runs that start now; bfloat16 uses "
        "autocast and is not validated yet",
    ),
]
CompileOption = Annotated[
    FastPathMode,
    typer.Option(
        rich_help_panel=COMPUTATION,
        help="whether runs that start now compile the networks' passes; auto: on a GPU, for runs "
        "of at least --compile-steps steps",
    ),
]
CompileStepsOption = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=COMPUTATION,
        metavar="N",
        help="with --compile auto, runs of at least this number of steps are compiled",
    ),
]
KernelsOption = Annotated[
    FastPathMode,
    typer.Option(
        rich_help_panel=COMPUTATION,
        help="whether runs that start now use this project's convolution kernels where these were "
        "measured to be faster; auto: in runs whose passes are compiled",
    ),
]
AccumulateOption = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=COMPUTATION,
        metavar="N",
        help="number of parts into which each process divides its images of a batch to save "
        "memory; it computes them one after the other",
    ),
]
TeacherViewsOption = Annotated[
    TeacherSourceChoice,
    typer.Option(
        rich_help_panel=COMPUTATION,
        metavar="SOURCE",
        help="source of the teacher's outputs; live: a forward pass in each step; float16 or "
        "float32: its stored views of that precision; auto: stored views if there are any, else "
        "live",
    ),
]
ViewsOutputsOption = Annotated[
    list[ViewsOutputChoice] | None,
    typer.Option(
        help="an output to store: the logits, or the pooled features before them; may be repeated "
        "(default: logits)"
    ),
]
ViewsPrecisionOption = Annotated[
    ViewsPrecision,
    typer.Option(help="precision in which the outputs are stored"),
]

# Starting, stopping and resuming.
CheckpointSecondsOption = Annotated[
    float,
    typer.Option(
        min=0,
        rich_help_panel=RESUMING,
        metavar="SECONDS",
        help="longest time in seconds between two checkpoints; 0: after each epoch",
    ),
]
IfLeasedOption = Annotated[
    IfLeased,
    typer.Option(
        rich_help_panel=RESUMING,
        help="what to do about a run or teacher that another process trains now; wait: do the "
        "others first, then wait until that process ends; refuse: leave it to that process, do the "
        "others, and exit with an error",
    ),
]
StaleOption = Annotated[
    bool,
    typer.Option(
        "--stale",
        rich_help_panel=RESUMING,
        help="train runs again if the code has changed since, or if the teacher's weights are no "
        "longer the same; their old records move to superseded/",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=RESUMING,
        metavar="MINUTES",
        help="save and exit with status 75 after this number of minutes; the same command resumes",
    ),
]
ExpectOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RESUMING,
        metavar="ID",
        help="refuse to start if the identity is not this one, because the sheet or the code has "
        "changed",
    ),
]
AttemptOption = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=RESUMING,
        metavar="N",
        help="number of this attempt; from 2 on, runs whose failure would repeat are skipped",
    ),
]
SinceOption = Annotated[
    float | None,
    typer.Option(hidden=True, help="skip runs that failed after this time, in seconds since 1970"),
]

# Output files.
OutputOption = Annotated[
    Path | None,
    typer.Option(
        callback=check_writable_option,
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="also write the result to this JSON file",
    ),
]
_RUN_LOG_HELP = (
    "also write the epochs of each run that is trained now for another program; tensorboard needs "
    "the extra of that name"
)
_RUN_LOG_DIR_HELP = (
    "folder for these logs, with one folder for each run (default: tensorboard/ in the run's own "
    "folder)"
)
RunLogOption = Annotated[RunLog, typer.Option("--log", rich_help_panel=OUTPUT, help=_RUN_LOG_HELP)]
RunLogDirOption = Annotated[
    Path | None,
    typer.Option(
        "--log-dir",
        callback=expand_home_option,
        rich_help_panel=OUTPUT,
        metavar="FOLDER",
        help=_RUN_LOG_DIR_HELP,
    ),
]
# In `skd job`, --log is the job's own log.
JobRunLogOption = Annotated[
    RunLog, typer.Option("--run-log", rich_help_panel=OUTPUT, help=_RUN_LOG_HELP)
]
JobRunLogDirOption = Annotated[
    Path | None,
    typer.Option(
        "--run-log-dir",
        callback=expand_home_option,
        rich_help_panel=OUTPUT,
        metavar="FOLDER",
        help=_RUN_LOG_DIR_HELP,
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="append all output to this file and to the .history.log file beside it",
    ),
]
