"""The options that training commands share. Imports no torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skd.common import bounds
from skd.common.files import check_writable, expand_home


class IfLeased(StrEnum):
    """What to do about a run that another process trains."""

    wait = "wait"
    refuse = "refuse"


class Step(StrEnum):
    """How a step is computed: `skd.training.execution`."""

    fast = "fast"
    eager = "eager"
    plain = "plain"


class When(StrEnum):
    """Whether a faster path is taken."""

    auto = "auto"
    always = "always"
    never = "never"


class Precision(StrEnum):
    """Of forward passes and losses."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class TeacherKind(StrEnum):
    """Where a teacher's outputs come from."""

    auto = "auto"
    live = "live"
    float16 = "float16"
    float32 = "float32"


def check_writable_option(path: Path | None) -> Path | None:
    """Check, as an option's callback, that a file can be written, before the work it is for.

    Raises:
        UnwritableError: it cannot.
    """
    if path is not None:
        check_writable(path)
    return path


StudyArgument = Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")]
TeacherArgument = Annotated[str, typer.Argument(help="the teacher's name in the sheet")]
StaleOption = Annotated[
    bool,
    typer.Option(
        "--stale",
        help="first begin anew what was trained by other code than today's, or taught by other "
        "weights than the teacher at hand has; its old record is kept in superseded/",
    ),
]
PairArgument = Annotated[
    str | None,
    typer.Argument(
        help="TEACHER--STUDENT, or STUDENT for methods without a teacher (default: the whole study)"
    ),
]
MethodsArgument = Annotated[
    list[str] | None,
    typer.Argument(help="the methods' names in the sheet (default: all of the pair)"),
]
ResultsOption = Annotated[
    Path,
    typer.Option(callback=expand_home, help="where runs, teachers and reports are kept"),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=bounds.check_threads,
        help="CPU threads; by default, as many as torch takes",
    ),
]
CheckpointSecondsOption = Annotated[
    float, typer.Option(min=0, help="at most so long between checkpoints; 0: every epoch")
]
IfLeasedOption = Annotated[
    IfLeased, typer.Option(help="if another process trains a run: train the others, then wait")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(callback=check_writable_option, help="also write the outcome to this file"),
]
ExpectOption = Annotated[
    str | None, typer.Option(help="refuse if the identity is another: the sheet or code changed")
]
AttemptOption = Annotated[
    int, typer.Option(min=1, help="from 2: a run that would only fail again is left alone")
]
SinceOption = Annotated[
    float | None,
    typer.Option(hidden=True, help="runs that failed since are left alone; seconds since 1970"),
]
SharingOption = Annotated[
    int, typer.Option(hidden=True, min=1, help="trainings that share the device, for the record")
]
LanesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=bounds.check_lanes,
        help="runs that this process trains side by side; by default one, and as many as help for "
        "a whole study on a GPU",
    ),
]
StepKind = Annotated[
    Step,
    typer.Option(
        help="how a step is computed, for runs that begin now: fast is channels-last with fused "
        "SGD and, on a GPU, a CUDA graph; eager is without the graph; plain is none of these"
    ),
]
PrecisionKind = Annotated[
    Precision,
    typer.Option(
        help="precision of forward passes and losses, for runs that begin now; bfloat16 is "
        "autocast, and not validated yet"
    ),
]
CompileOption = Annotated[
    When,
    typer.Option(
        help="compile the networks' passes, for runs that begin now; auto: on a GPU, for runs of "
        "--compile-steps steps or more"
    ),
]
CompileStepsOption = Annotated[
    int, typer.Option(min=0, help="number of steps of a whole run from which on auto compiles it")
]
KernelsOption = Annotated[
    When,
    typer.Option(
        help="use this project's convolution kernels where they were measured to be faster, for "
        "runs that begin now; auto: together with compiled passes"
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="save and leave after this many minutes with exit status 75; the same command goes on",
    ),
]
AccumulateOption = Annotated[
    int,
    typer.Option(min=1, help="parts that a process's images of a batch are seen in, one by one"),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        callback=bounds.check_workers,
        help="processes that decode photos; by default one a core on a GPU, else 0",
    ),
]
TeacherViewsOption = Annotated[
    TeacherKind,
    typer.Option(help="the teacher's outputs; auto: its stored views, if there are any"),
]
DEFAULT_RESULTS = Path("results")
