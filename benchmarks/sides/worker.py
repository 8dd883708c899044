"""A side's process: builds the side and answers requests. Each message is a line of JSON.

`benchmarks.side_process` starts it. It exits at the end of its standard input.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import IO, Any

import torch

from benchmarks.cases import BenchmarkCase, SideOptions
from benchmarks.side_names import BenchmarkSide
from skd.common.errors import SkdError, UnfitError
from skd.training.environment import reset_peak_memory

MIN_STEPS = 10  # of a turn, even beyond its time limit


def main() -> None:
    """Serve one side, or call one measuring function, over standard input and output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    try:
        _serve(sys.stdin, answers)
    except Exception as error:
        _answer(answers, **_reason(error))
        sys.exit(1)


def _serve(requests: IO[str], answers: IO[str]) -> None:
    request = json.loads(requests.readline())
    case = BenchmarkCase.model_validate(request["case"])
    options = SideOptions.model_validate(request["options"])
    torch.set_num_threads(options.threads)
    side = _function(request["builder"])(case, options, **request["arguments"])
    if isinstance(side, dict):  # the result of a measuring function
        _answer(answers, result=side)
        return
    _answer(answers, **_build_answer(side, options))
    for line in requests:
        try:
            answer = _do(side, **json.loads(line))
        except UnfitError as error:  # another variant may be possible
            answer = _reason(error, process_usable=True)
        _answer(answers, **answer)


def _build_answer(side: BenchmarkSide, options: SideOptions) -> dict[str, Any]:
    side.synchronise()
    reset_peak_memory(torch.device(options.device))  # exclude the memory of building
    return {"how": side.describe()}


def _function(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _do(side: BenchmarkSide, do: str, **arguments: Any) -> dict[str, Any]:
    """Return the answer to one request."""
    if do == "rebuild":
        options = SideOptions.model_validate(arguments["options"])
        side.rebuild(options)
        return _build_answer(side, options)
    if do == "steps":
        return {"seconds": _step_seconds(side, **arguments)}
    if do == "evaluate":
        return {"seconds": _timed(side, side.evaluate)}
    if do == "finish":
        return {"peak_memory_bytes": side.peak_memory(), "how": side.describe()}
    raise ValueError(f"unknown request '{do}'")


def _step_seconds(side: BenchmarkSide, steps: int, lead: int, limit: float | None) -> float:
    """Return the seconds per step. The ``lead`` steps before are untimed and refill the caches."""
    for _ in range(lead):
        side.step()
    done = 0

    def turn() -> None:
        nonlocal done
        end = math.inf if limit is None else time.perf_counter() + limit
        while done < steps and (done < MIN_STEPS or time.perf_counter() < end):
            side.step()
            done += 1
            if limit is not None and done % MIN_STEPS == 0:
                side.synchronise()  # otherwise a GPU's time would be that of the launches

    return _timed(side, turn) / done


def _timed(side: BenchmarkSide, work: Callable[[], None]) -> float:
    side.synchronise()
    started = time.perf_counter()
    work()
    side.synchronise()
    return time.perf_counter() - started


def _reason(error: Exception, process_usable: bool = False) -> dict[str, Any]:
    expected = isinstance(error, SkdError)
    return {
        "failure": str(error) if expected else f"{type(error).__name__}: {error}",
        "unfit": isinstance(error, UnfitError),
        "traceback": None if expected else traceback.format_exc(),
        "process_usable": process_usable,
    }


def _answer(answers: IO[str], **data: Any) -> None:
    print(json.dumps(data), file=answers, flush=True)


if __name__ == "__main__":
    main()
