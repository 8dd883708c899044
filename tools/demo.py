"""Run the demo study with one line of progress, and end with its results: ``make demo``.

Snakemake's output goes to a file. If something fails, its failures and the file's path are shown,
and the exit status is Snakemake's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rich.progress import BarColumn, Progress, TimeElapsedColumn  # noqa: E402

from skd.cli.error_lines import run_command  # noqa: E402
from skd.common.terminal import PlainConsole, description_column, printable  # noqa: E402
from skd.jobs.snakemake_errors import failed_rule_lines  # noqa: E402
from skd.store.store import Store, StoreEntry  # noqa: E402
from skd.study.expansion import Expansion  # noqa: E402
from skd.study.expansion_files import load_expansion  # noqa: E402

STUDY = "demo"
RESULTS = Path("results")
POLL_SECONDS = 1.0
LINE_SECONDS = 20.0  # between two lines of progress if there is no terminal
TAIL = 25  # lines of the log that are shown if Snakemake failed and no rule did
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NEXT = f"""\
Next, after `source .venv/bin/activate`:
  make compare                    compare these numbers with ours
  skd show {STUDY}/PAIR/METHOD/0     everything about one run
  skd list studies                the other studies; to run one on this machine:
  snakemake --profile local all --config study=NAME"""


@dataclass(frozen=True)
class Trained:
    """How much of a study is trained.

    Attributes:
        done: number of finished teachers and runs.
        total: number of teachers and runs of the study.
        share: share of the training that is done, with the finished epochs of running trainings.
    """

    done: int
    total: int
    share: float

    def __str__(self) -> str:
        """Return the stage as a phrase."""
        if self.done == self.total:
            return "analysing the runs and writing the report"
        return f"{self.done} of {self.total} trainings finished"


def trained(entries: Sequence[tuple[StoreEntry, bool]]) -> Trained:
    """Return how much of some entries is trained; each is given with whether it is a teacher."""
    shares = [_share(entry, is_teacher) for entry, is_teacher in entries]
    done = sum(share == 1 for share in shares)
    return Trained(done, len(shares), sum(shares) / max(1, len(shares)))


def _share(entry: StoreEntry, is_teacher: bool) -> float:
    if entry.card_path.is_file() if is_teacher else entry.record_path.is_file():
        return 1.0
    progress = entry.progress()
    return min(0.99, progress.epoch / progress.epochs) if progress else 0.0


def entries_of(expansion: Expansion, store: Store) -> list[tuple[StoreEntry, bool]]:
    """Return the folders of a study's teachers and runs, each with whether it is a teacher."""
    runs = dict.fromkeys(run for cell in expansion.cells for run in cell.runs.values())
    teachers = [(store.teacher(node.id), True) for node in expansion.teachers]
    return [*teachers, *((store.run(run), False) for run in runs)]


@contextmanager
def forwarded_signals(process: subprocess.Popen) -> Iterator[None]:
    """Pass the signals that end this process on to a process group, which saves first."""

    def forward(number: int, _frame: object) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)

    earlier = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def run_with_progress(command: Sequence[str], log: Path, state: Callable[[], Trained]) -> int:
    """Run a command with its output in a file, and show progress; return its exit status.

    On a terminal, one line is updated. Otherwise a line is printed now and then.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    console = PlainConsole(stderr=True)
    bar = Progress(
        description_column(),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task, printed = bar.add_task(str(state()), total=1.0), time.monotonic()
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
        ) as process,
        forwarded_signals(process),
        bar,
    ):
        while process.poll() is None:
            current = state()
            bar.update(task, completed=current.share, description=str(current))
            if bar.disable and time.monotonic() - printed >= LINE_SECONDS:
                printed = time.monotonic()
                print(f"{STUDY}: {current}", file=sys.stderr, flush=True)
            _wait(process, POLL_SECONDS)
    return process.returncode


def _wait(process: subprocess.Popen, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def failure_lines(log: str) -> list[str]:
    """Return a line for each rule that failed; without any, the end of Snakemake's output."""
    return failed_rule_lines(log) or log.splitlines()[-TAIL:]


def span(seconds: float) -> str:
    """Return a duration in words: minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def print_results(expansion: Expansion) -> None:
    """Print the study's results as `skd results` does."""
    from report.findings import read_findings
    from report.output.margin import margin_of
    from report.output.terminal import results_tables

    console = PlainConsole()
    console.print()
    findings = read_findings(expansion, RESULTS, margin_of(RESULTS, STUDY))
    for part in results_tables(findings, console.width):
        console.print(part)


def main() -> None:
    """Run the study; print its results, the report's path, the time it took, and what to do next.

    Raises:
        StudyError: the study cannot be expanded.
    """
    start = time.monotonic()
    log = RESULTS / STUDY / "logs" / "snakemake.log"
    print(f"{STUDY}: Snakemake's output is in {log}", file=sys.stderr, flush=True)
    expansion = load_expansion(STUDY, RESULTS)
    entries = entries_of(expansion, Store(RESULTS))
    before = trained(entries)
    command = [sys.executable, "-m", "snakemake", "--profile", "local", STUDY]
    status = run_with_progress(command, log, lambda: trained(entries))
    after = trained(entries)
    if after.done:
        print_results(expansion)
    took = span(time.monotonic() - start)
    page = RESULTS / STUDY / "report" / "index.html"
    print()
    if page.is_file():
        print(f"The report: {page}")
    print(f"{after.done - before.done} of {after.total} trainings done now, in {took}")
    print(f"Snakemake's output: {log}")
    if status:
        sys.stdout.flush()
        print(f"\n{STUDY} is not finished: Snakemake's exit status is {status}", file=sys.stderr)
        for line in failure_lines(log.read_text(encoding="utf-8", errors="replace")):
            print(printable(line), file=sys.stderr)
        print(f"All of its output is in {log}; `make demo` continues", file=sys.stderr)
        sys.exit(128 - status if status < 0 else status)
    print(f"\n{NEXT}")


if __name__ == "__main__":
    os.chdir(ROOT)
    run_command(STUDY, main)
