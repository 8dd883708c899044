"""The parent's end of a side's process. Imports no torch.

Between what it is asked, a side's whole process group is stopped (SIGSTOP): it takes no time from
the others, loaders do not fetch ahead, threads do not spin; and it goes on where it stood, with its
loader as full or as empty as it was.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
from typing import Any, Self

from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.time_limit import UNLIMITED, TimeLimit
from skd.common.errors import SkdError

TAIL_LINES = 5  # of what a process said before it died
END_SECONDS = 20


class SideError(SkdError):
    """A side could not do what it was asked. Says why.

    Attributes:
        unfit: the side has no such method or network: no fault.
        traceback: of an unexpected error.
        process_usable: its process goes on, and can be asked to build something else.
        time_is_up: its time was up before it answered: no fault either.
    """

    def __init__(
        self,
        message: str,
        unfit: bool = False,
        traceback: str | None = None,
        process_usable: bool = False,
        time_is_up: bool = False,
    ) -> None:
        super().__init__(message)
        self.unfit, self.traceback, self.process_usable, self.time_is_up = (
            unfit,
            traceback,
            process_usable,
            time_is_up,
        )


class SideProcess:
    """One side in a process of its own; a context manager, at whose end the process is gone.

    Args:
        builder: ``module:function``, called there with case and options.
        case: what to train.
        options: how.
        limit: how long it may take to answer.
        **arguments: further ones of the function.
    """

    def __init__(
        self,
        builder: str,
        case: BenchmarkCase,
        options: SideOptions,
        limit: TimeLimit = UNLIMITED,
        **arguments: Any,
    ) -> None:
        self._limit = limit
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        if options.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # nobody's code shall find a GPU by itself
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
            bufsize=1,
            env=environment,
            # A group to stop and go on as one, in this session: should this process be killed, the
            # kernel ends those of an orphaned group that are stopped.
            process_group=0,
        )
        self._running = True
        self._first = {
            "builder": builder,
            "case": case.model_dump(mode="json"),
            "options": options.model_dump(mode="json"),
            "arguments": arguments,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close(at_once=error[0] is not None)

    def build(self) -> dict[str, Any]:
        """Have the side built, and return what it says of itself.

        Raises:
            SideError: it cannot be built, or has died.
        """
        return self._ask(self._first)["how"]

    def rebuild(self, options: SideOptions) -> dict[str, Any]:
        """Have the side built in another way, and return what it says of itself.

        Raises:
            SideError: it cannot be built, or has died.
        """
        return self._ask({"do": "rebuild", "options": options.model_dump(mode="json")})["how"]

    def measure(self) -> dict[str, Any]:
        """Have a function that measures called, and return what it found.

        Raises:
            SideError: it failed.
        """
        return self._ask(self._first)["found"]

    def steps(self, steps: int, lead: int = 0, seconds: float | None = None) -> float:
        """Return the seconds that a training step takes.

        Args:
            steps: to be timed.
            lead: more steps before them, which are not timed.
            seconds: after which the turn may end before all steps are done.
        """
        request = {"do": "steps", "steps": steps, "lead": lead, "limit": seconds}
        return self._ask(request)["seconds"]

    def evaluate(self) -> float:
        """Return the seconds of an evaluation."""
        return self._ask({"do": "evaluate"})["seconds"]

    def finish(self) -> dict[str, Any]:
        """Return ``peak_memory_bytes``, and ``how`` it was trained in the end."""
        return self._ask({"do": "finish"})

    def close(self, at_once: bool = False) -> None:
        """End the process, by force where it does not end by itself, or at once."""
        process = self._process
        with contextlib.suppress(OSError):  # what it did not read is lost anyway
            process.stdin.close()
        try:
            self._signal(signal.SIGCONT)
            process.wait(0 if at_once else END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            self._said.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if not self._running:
            self._signal(signal.SIGCONT)
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            in_time = self._answers_in_time()
            line = self._process.stdout.readline() if in_time else ""
        except BrokenPipeError:
            in_time, line = True, ""
        self._signal(signal.SIGSTOP)
        self._running = False
        if not in_time:
            self._signal(signal.SIGKILL)
            raise SideError("time is up", time_is_up=True)
        if not line:
            raise SideError(self._death())
        answer = json.loads(line)
        if "failure" in answer:
            known = ("unfit", "traceback", "serves")
            raise SideError(answer["failure"], **{name: answer[name] for name in known})
        return answer

    def _answers_in_time(self) -> bool:
        left = self._limit.left  # what is answered is one line, and nothing before it is left over
        ready, _, _ = select.select(
            [self._process.stdout], [], [], None if left == math.inf else left
        )
        return bool(ready)

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _death(self) -> str:
        """Return how the process ended, and its last words."""
        self._signal(signal.SIGCONT)  # it may have been stopped on its way out
        status = self._process.wait()
        how = f"exit status {status}"
        if status < 0:
            how = f"signal {signal.Signals(-status).name}"
            how += " (out of memory?)" if -status == signal.SIGKILL else ""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        tail = " / ".join(line.strip() for line in lines[-TAIL_LINES:])
        return f"its process ended by {how}" + (f": {tail}" if tail else "")
