"""The options that training commands share. Imports no torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skd.common import bounds
from skd.common.files import check_writable, home_expanded


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


def writable(path: Path | None) -> Path | None:
    """Check, as an option's callback, that a file can be written, before the work it is for.

    Raises:
        UnwritableError: it cannot.
    """
    if path is not None:
        check_writable(path)
    return path


Study = Annotated[str, typer.Argument(help="a study's name, or the path of its sheet")]
TeacherName = Annotated[str, typer.Argument(help="the teacher's name in the sheet")]
Stale = Annotated[
    bool,
    typer.Option(
        "--stale",
        help="first begin anew what was trained by other code than today's, or taught by other "
        "weights than the teacher at hand has; its old record is kept in superseded/",
    ),
]
PairName = Annotated[
    str | None,
    typer.Argument(
        help="TEACHER--STUDENT, or STUDENT for methods without a teacher (default: the whole study)"
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Argument(help="the methods' names in the sheet (default: all of the pair)"),
]
Results = Annotated[
    Path,
    typer.Option(callback=home_expanded, help="where runs, teachers and reports are kept"),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=bounds.threads,
        help="CPU threads; by default, as many as torch takes",
    ),
]
CheckpointSeconds = Annotated[
    float, typer.Option(min=0, help="at most so long between checkpoints; 0: every epoch")
]
Leased = Annotated[
    IfLeased, typer.Option(help="if another process trains a run: train the others, then wait")
]
Output = Annotated[
    Path | None, typer.Option(callback=writable, help="also write the outcome to this file")
]
Expect = Annotated[
    str | None, typer.Option(help="refuse if the identity is another: the sheet or code changed")
]
Attempt = Annotated[
    int, typer.Option(min=1, help="from 2: a run that would only fail again is left alone")
]
Since = Annotated[
    float | None,
    typer.Option(hidden=True, help="runs that failed since are left alone; seconds since 1970"),
]
Sharing = Annotated[
    int, typer.Option(hidden=True, min=1, help="trainings that share the device, for the record")
]
Lanes = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=bounds.lanes,
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
Compile = Annotated[
    When,
    typer.Option(
        help="compile the networks' passes, for runs that begin now; auto: on a GPU, for runs of "
        "--compile-steps steps or more"
    ),
]
CompileSteps = Annotated[
    int, typer.Option(min=0, help="number of steps of a whole run from which on auto compiles it")
]
Kernels = Annotated[
    When,
    typer.Option(
        help="use this project's convolution kernels where they were measured to be faster, for "
        "runs that begin now; auto: together with compiled passes"
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="save and leave after this many minutes with exit status 75; the same command goes on",
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(min=1, help="parts that a process's images of a batch are seen in, one by one"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        callback=bounds.workers,
        help="processes that decode photos; by default one a core on a GPU, else 0",
    ),
]
TeacherFrom = Annotated[
    TeacherKind,
    typer.Option(help="the teacher's outputs; auto: its stored views, if there are any"),
]
RESULTS = Path("results")
