"""Run the tests that need a CUDA GPU: together, then each recording test in a process of its own.

What a library sets up once in a process can hide that a step cannot be recorded in a fresh one.
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
# A process has a CUDA context of half a gigabyte, and compiles with a core of its own.
MOST = 12
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


def main() -> int:
    """Return the exit status: 0 where all tests passed or were skipped."""
    if not torch.cuda.is_available():
        print("no CUDA device here: none of these tests can run", file=sys.stderr)
        return 2
    workers = min(MOST, os.cpu_count() or 1)
    begun = time.monotonic()
    side_by_side = importlib.util.find_spec("xdist") is not None
    together = [*PYTEST, "-m", "gpu", "-rs", "--durations=5"]
    if side_by_side:
        together += ["--numprocesses", str(workers), "--dist", "worksteal"]
    print(f"all together{'' if side_by_side else ', in a row: pytest-xdist is not installed'}")
    failed = subprocess.run([*together, "tests"], cwd=ROOT, check=False).returncode
    print(f"{time.monotonic() - begun:.0f} s; now each recording test in a process of its own")
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(_alone, _recording_tests()))
    wrong = [output for passed, output in outcomes if not passed]
    for output in wrong:
        print(output)
    print(
        f"{len(outcomes) - len(wrong)} of {len(outcomes)} pass alone; "
        f"{time.monotonic() - begun:.0f} s in all"
    )
    return failed or (1 if wrong or not outcomes else 0)


def _recording_tests() -> list[str]:
    """Return the ids of the tests that record steps."""
    command = [*PYTEST, "-m", "gpu and recording", "--collect-only", "tests"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


def _alone(test: str) -> tuple[bool, str]:
    """Return whether a test passes in a fresh process, and what it printed."""
    done = subprocess.run(
        [*PYTEST, test],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    passed = not done.returncode and "1 passed" in done.stdout  # a skipped one shows nothing
    return passed, f"--- {test}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    sys.exit(main())
