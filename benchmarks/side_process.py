"""The parent's side of the communication with a side's process. Imports no torch.

Between requests, the whole process group of a side is stopped (SIGSTOP). It then takes no CPU time
from the other sides: its loaders do not prefetch and its threads do not spin. After SIGCONT it
continues with its loader's queue unchanged.
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

TAIL_LINES = 5  # last lines of a dead process's output that are reported
END_SECONDS = 20  # time for a process to exit by itself


class SideError(SkdError):
    """A side could not answer a request. The message is the reason.

    Attributes:
        unfit: the side has no such method or network, which is not an error.
        traceback: of an unexpected error, or ``None``.
        process_usable: the process is running and can build another variant.
        time_is_up: the time limit was reached before the answer, which is not an error.
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
        self.unfit, self.traceback = unfit, traceback
        self.process_usable, self.time_is_up = process_usable, time_is_up


class SideProcess:
    """A side in its own process, as a context manager that ends the process.

    Args:
        builder: ``module:function``, called in the process with case and options.
        case: the case to train.
        options: the side's options.
        limit: time limit of the answers.
        **arguments: further arguments of the function.
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
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        if options.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # no code may use a GPU on its own
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
            encoding="utf-8",
            bufsize=1,
            env=environment,
            # Its own group, to stop and continue its processes at once. It stays in this session:
            # if this process is killed, the kernel ends the stopped processes of an orphaned group.
            process_group=0,
        )
        self._running = True
        self._build_request = {
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
        """Build the side, and return its description of itself.

        Raises:
            SideError: it cannot be built, or has died.
        """
        return self._ask(self._build_request)["how"]

    def rebuild(self, options: SideOptions) -> dict[str, Any]:
        """Build the side again with other options, and return its description of itself.

        Raises:
            SideError: it cannot be built, or has died.
        """
        return self._ask({"do": "rebuild", "options": options.model_dump(mode="json")})["how"]

    def call_function(self) -> dict[str, Any]:
        """Call the builder as a measuring function, and return its result.

        Raises:
            SideError: it failed.
        """
        return self._ask(self._build_request)["result"]

    def time_steps(self, steps: int, lead: int = 0, seconds: float | None = None) -> float:
        """Return the seconds per training step.

        Args:
            steps: number of timed steps.
            lead: number of untimed steps before them.
            seconds: time after which the turn may end before all steps; ``None``: no limit.
        """
        request = {"do": "steps", "steps": steps, "lead": lead, "limit": seconds}
        return self._ask(request)["seconds"]

    def time_evaluation(self) -> float:
        """Return the seconds of an evaluation."""
        return self._ask({"do": "evaluate"})["seconds"]

    def finish(self) -> dict[str, Any]:
        """Return ``peak_memory_bytes`` and ``how``, the side's final description of itself."""
        return self._ask({"do": "finish"})

    def close(self, at_once: bool = False) -> None:
        """End the process; kill it if it does not exit in time, or ``at_once``."""
        process = self._process
        with contextlib.suppress(OSError):  # the process no longer reads
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
            self._output.close()

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
            attributes = ("unfit", "traceback", "process_usable")
            raise SideError(answer["failure"], **{name: answer[name] for name in attributes})
        return answer

    def _answers_in_time(self) -> bool:
        # An answer is one line, so Python's buffer is empty before it and `select` is reliable.
        seconds = self._limit.seconds_left
        timeout = None if seconds == math.inf else seconds
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        return bool(ready)

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _death(self) -> str:
        """Return how the process ended, with its last lines of output."""
        self._signal(signal.SIGCONT)  # it may have been stopped while it exited
        status = self._process.wait()
        cause = f"exit status {status}"
        if status < 0:
            cause = f"signal {signal.Signals(-status).name}"
            cause += " (out of memory?)" if -status == signal.SIGKILL else ""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        tail = " / ".join(line.strip() for line in lines[-TAIL_LINES:])
        return f"its process ended with {cause}" + (f": {tail}" if tail else "")
