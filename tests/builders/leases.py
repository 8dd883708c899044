"""Leases of this process and of others, and waiting for what threads do."""

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
DEADLINE = 30.0  # of a wait that only a defect makes so long


def no_such_process() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


def leave(folder: Path, number: int = 1, **changes: object) -> Path:
    """Leave the lease of this very process, or with changes another's."""
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
