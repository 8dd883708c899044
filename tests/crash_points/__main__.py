"""Kill a command before each of its operations on files, run it again, compare the outcome.

    python -m tests.crash_points --help

For each step (a teacher's import, a training, storing teacher views, an analysis, a report) and
for each number n: a copy of the results so far, in which the command is killed just before its n-th
operation that changes files (`tests.crash_points.dying`) and then run again to its end. The result
must equal that of an uninterrupted command bit for bit, except for times; no other file
may be left.

Everything is imported once; each command runs in a fork of this process.
"""

import contextlib
import importlib
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a fork cannot use its parent's GPU

import torch
import typer
from rich.console import Console
from rich.progress import Progress

import report.figures.gallery
import skd.cli.main
import skd.cli.report
import skd.common.lease
from report.findings import read_findings
from report.statistics.verdicts import DEFAULT_MARGIN
from skd.analyses.networks import features
from skd.common.files import sha256_of
from skd.models import build_model
from skd.randomness import seeded
from skd.study.expansion_files import load_expansion
from skd.training import progress_file, stored_views
from skd.training.environment import environment
from tests.crash_points.dying import Dying

HERE = ("--device", "cpu", "--threads", "1")
SHEET = """
title: crash points
dataset: {{name: digits, train_limit: 80}}
recipe: {{epochs: 2, milestones: []}}
teachers:
  teacher: {{network: resnet8, import: {{file: {file}, sha256: {sha256}, accept_poor: true}}}}
pairs: [{{teacher: teacher, student: resnet8}}]
methods: [skd]
seeds: 1
"""
COMMANDS = {
    "import": ["skd", "teacher", "crash", "teacher", *HERE],
    "training": ["skd", "train", "crash", "--checkpoint-seconds", "0", *HERE],
    "views": ["skd", "teacher-views", "crash", "teacher", *HERE],
    "analysis": ["skd", "analyse", "crash"],
    "report": ["skd-report", "crash"],
}
# Values that also differ between uninterrupted runs, by file name; * is each item of a list.
TIMES = {
    "record.json": [
        *("finished_at", "environment", "execution.sessions", "cost.sessions"),
        *("cost.train_seconds", "cost.seconds_per_epoch", "cost.images_per_second"),
        *("cost.peak_memory_bytes", "epochs.*.seconds", "epochs.*.images_per_second"),
    ],
    "logits-float16.json": ["seconds", "made_at"],
}


@dataclass(frozen=True)
class Outcome:
    """The crash points of one step: how many exist, were tried, and failed."""

    step: str
    points: int
    tried: int
    failures: dict[int, str]
    seconds: float


def command(folder: Path, argv: Sequence[str], fatal: int, summary: Path | None = None) -> None:
    """Run a command in a folder of results, in this process; it is killed at the fatal operation.

    Args:
        folder: the working folder, which holds ``results/``.
        argv: of the command.
        fatal: as `Dying` takes it.
        summary: file that receives the number of operations and the imported modules.
    """
    os.chdir(folder)
    sys.argv = list(argv)
    dying = Dying(folder, fatal)
    try:
        (skd.cli.report if argv[0] == "skd-report" else skd.cli.main).main()
    except SystemExit as left:
        if left.code:
            raise
    if summary is not None:
        summary.write_text(json.dumps([dying.count, sorted(sys.modules)]))


def in_fork(work: Callable[[], None], log: Path) -> int:
    """Call a function in a fork of this process, its output in a file; return its status."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def examine(base: Path, reference: Path, argv: Sequence[str], point: int, scratch: Path) -> str:
    """Try one crash point; return what is wrong, or an empty text.

    Args:
        base: results before the command.
        reference: results after an uninterrupted one.
        argv: of the command.
        point: number of the operation.
        scratch: a folder for this point, which is removed if nothing is wrong.
    """
    folder, log = scratch / "results-of-point", scratch / "log"
    shutil.copytree(base, folder)
    killed = in_fork(lambda: command(folder, argv, point), log)
    if killed != -signal.SIGKILL:
        return f"it was not killed, but ended with {killed}; see {log}"
    status = in_fork(lambda: command(folder, argv, 0), log)
    if status:
        return f"run again, it ended with {status}; see {log}"
    if wrong := differences(reference, folder):
        return f"{'; '.join(wrong)}; see {scratch}"
    shutil.rmtree(scratch)
    return ""


def differences(reference: Path, folder: Path) -> list[str]:
    """Return how two folders of results differ, except for times."""
    wanted, actual = contents(reference), contents(folder)
    differing = [name for name in wanted if name in actual and wanted[name] != actual[name]]
    return [
        *(f"{name} is missing" for name in sorted(wanted.keys() - actual.keys())),
        *(f"{name} is left" for name in sorted(actual.keys() - wanted.keys())),
        *(f"{name} is another" for name in differing),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files under a folder by their paths in it, without times."""
    return {
        path.relative_to(folder).as_posix(): timeless(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def timeless(path: Path) -> bytes:
    """Return a file's content without the times in it."""
    content = path.read_bytes()
    if path.name not in TIMES:
        return content
    data = json.loads(content)
    for place in TIMES[path.name]:
        _remove(data, place.split("."))
    return json.dumps(data, sort_keys=True).encode()


def _remove(data: Any, place: Sequence[str]) -> None:
    first, *rest = place
    if first == "*":
        for item in data:
            _remove(item, rest)
    elif rest:
        _remove(data[first], rest)
    else:
        del data[first]


def try_step(step: str, base: Path, reference: Path, every: int, jobs: int) -> Outcome:
    """Try the crash points of one step; keep the uninterrupted command's results as reference."""
    started, argv, scratch = time.monotonic(), COMMANDS[step], reference.parent / step
    scratch.mkdir()
    summary, log = scratch / "summary", scratch / "log"
    shutil.copytree(base, reference)
    if in_fork(lambda: command(reference, argv, 0, summary), log):
        raise SystemExit(f"{step} does not even work uninterrupted:\n{log.read_text()}")
    points, modules = json.loads(summary.read_text())
    for module in modules:  # once, instead of in each fork
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    chosen = range(1, points + 1, every)
    failures = {}
    with Progress(console=Console(stderr=True)) as progress:
        tried = progress.track(chosen, description=f"{step}, {points} points")
        for point, wrong in _at_once(
            jobs,
            tried,
            lambda point: examine(base, reference, argv, point, scratch / str(point)),
            scratch,
        ):
            if wrong:
                failures[point] = wrong
    return Outcome(step, points, len(chosen), failures, time.monotonic() - started)


def _at_once(
    jobs: int, points: Iterator[int], work: Callable[[int], str], scratch: Path
) -> Iterator[tuple[int, str]]:
    """Do the work of each point in a fork, several in parallel; yield each point and result."""
    running: dict[int, int] = {}

    def ended() -> tuple[int, str]:
        pid, status = os.wait()
        point = running.pop(pid)
        result = scratch / f"{point}.result"
        return point, result.read_text() if result.exists() else f"the trial ended with {status}"

    for point in points:
        while len(running) >= jobs:
            yield ended()
        if (pid := os.fork()) == 0:
            try:
                (scratch / f"{point}.result").write_text(work(point))
            finally:
                os._exit(0)
        running[pid] = point
    while running:
        yield ended()


def prepare(scratch: Path) -> Path:
    """Write a study and the teacher's file that it imports; return a folder for its results."""
    network = scratch / "teacher.pth"
    with seeded(7, "a teacher's weights"):
        torch.save(build_model("resnet8", 10).state_dict(), network)
    sheet = scratch / "sheets" / "crash.yaml"
    sheet.parent.mkdir()
    sheet.write_text(SHEET.format(file=network, sha256=sha256_of(network)))
    os.environ["SKD_STUDIES"] = str(sheet.parent)
    base = scratch / "base"
    load_expansion("crash", base / "results")
    return base


def draw_once(folder: Path, scratch: Path) -> None:
    """Make all reports use the same figures, drawn once in a fork: they are slow to draw."""
    drawn = scratch / "gallery"

    def draw() -> None:
        findings = read_findings(
            load_expansion("crash", folder / "results"), folder / "results", DEFAULT_MARGIN
        )
        expansion, frames = findings.expansion, findings.frames
        gallery = report.figures.gallery.make_gallery(
            expansion, frames, findings.pairs, findings.analyses, findings.ranking, DEFAULT_MARGIN,
            findings.names,
        )  # fmt: skip
        drawn.write_bytes(pickle.dumps(gallery))

    if in_fork(draw, scratch / "drawing"):
        raise SystemExit((scratch / "drawing").read_text())
    gallery = pickle.loads(drawn.read_bytes())
    report.figures.gallery.make_gallery = lambda *_: gallery


def main(
    step: Annotated[
        list[str] | None, typer.Option(help=f"only these, and the ones before: {[*COMMANDS]}")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="try only every n-th point")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="points that are tried in parallel")] = 2,
    keep: Annotated[
        Path | None, typer.Option(help="work in this new folder, and keep what failed")
    ] = None,
) -> None:
    """Try the crash points of all steps, as the module's docstring describes."""
    if unknown := {*(step or ())} - COMMANDS.keys():
        raise typer.BadParameter(f"unknown steps {unknown}; allowed: {[*COMMANDS]}")
    torch.set_num_threads(1)
    features.IMAGES_PER_CLASS = 4
    # Files that are written periodically would change the number of operations.
    skd.common.lease.HEARTBEAT_SECONDS = progress_file.WRITE_SECONDS = stored_views.SAVE_SECONDS = (
        3600.0
    )
    environment()  # asks git and the machine once instead of in each fork
    os.environ["COLUMNS"] = "200"
    scratch = keep or Path(tempfile.mkdtemp(prefix="crash-points-"))
    scratch.mkdir(exist_ok=True, parents=True)
    base, outcomes = prepare(scratch.resolve()), []
    for name in COMMANDS:
        if name == "report":
            draw_once(base, scratch)
        reference = scratch.resolve() / f"after-{name}"
        chosen = step is None or name in step
        outcome = try_step(name, base, reference, every if chosen else 10**9, jobs)
        base = reference
        if not chosen:
            continue
        outcomes.append(outcome)
        print(
            f"{name}: {outcome.points} crash points, {outcome.tried} tried, "
            f"{len(outcome.failures)} failed, {outcome.seconds:.0f} s",
            flush=True,
        )
        for point, wrong in sorted(outcome.failures.items()):
            print(f"  point {point}: {wrong}")
        if step is not None and {*step} <= {done.step for done in outcomes}:
            break
    tried = sum(outcome.tried for outcome in outcomes)
    failed = sum(len(outcome.failures) for outcome in outcomes)
    print(f"{tried} crash points tried, {failed} failed")
    if failed:
        raise typer.Exit(1)
    if keep is None:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    typer.run(main)
