"""Run the tests that need a CUDA GPU together, then each recording test in its own process.

Libraries initialise some state once per process. This can hide that a step cannot be recorded in a
new process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
# Each process has a CUDA context of half a gigabyte, and uses one core to compile.
MAX_PROCESSES = 12
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


def main() -> int:
    """Run the tests, and return the exit status: 0 if all tests passed or were skipped."""
    if not torch.cuda.is_available():
        print("these tests need a CUDA device, and there is none", file=sys.stderr)
        return 2
    workers = min(MAX_PROCESSES, os.cpu_count() or 1)
    started = time.monotonic()
    side_by_side = importlib.util.find_spec("xdist") is not None
    together = [*PYTEST, "-m", "gpu", "-rs", "--durations=5"]
    if side_by_side:
        together += ["--numprocesses", str(workers), "--dist", "worksteal"]
    mode = "in parallel" if side_by_side else "sequentially, because pytest-xdist is not installed"
    print(f"all tests {mode}")
    failed = subprocess.run([*together, "tests"], cwd=ROOT, check=False).returncode
    print(f"{time.monotonic() - started:.0f} s; now each recording test in its own process")
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(_run_alone, _recording_tests()))
    failures = [output for passed, output in outcomes if not passed]
    for output in failures:
        print(output)
    print(
        f"{len(outcomes) - len(failures)} of {len(outcomes)} pass alone; "
        f"{time.monotonic() - started:.0f} s in total"
    )
    return failed or (1 if failures or not outcomes else 0)


def _recording_tests() -> list[str]:
    """Return the ids of the tests that record steps."""
    command = [*PYTEST, "-m", "gpu and recording", "--collect-only", "tests"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


def _run_alone(test: str) -> tuple[bool, str]:
    """Return whether a test passes in a new process, and its output."""
    done = subprocess.run(
        [*PYTEST, test],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    passed = not done.returncode and "1 passed" in done.stdout  # a skipped test is not a pass
    return passed, f"--- {test}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    sys.exit(main())
