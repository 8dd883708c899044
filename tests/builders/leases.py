"""Leases of this process and of others, and a wait for other threads."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from skd.common.lease import (
    LeaseHolder,
)
from skd.common.process_identity import process_start

HERE = socket.gethostname()
ELSEWHERE = "another-machine"
DEADLINE = 30.0  # seconds; only a defect makes a wait this long


def no_such_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def leave(folder: Path, number: int = 1, **changes: object) -> Path:
    """Write a lease of this process; changes turn it into another process's."""
    folder.mkdir(parents=True, exist_ok=True)
    started = process_start(os.getpid())
    values = asdict(LeaseHolder("theirs", HERE, os.getpid(), started, None, time.time())) | changes
    path = folder / f"lease-{number}.json"
    path.write_text(json.dumps(values))
    return path


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
