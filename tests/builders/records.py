"""Records, cards, failure notes and leases of a store, written without training."""

import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skd.common.files import write_json
from skd.common.lease import LeaseHolder
from skd.store.records import Accuracy, Cost, EpochMetrics, Failure, Record, TeacherCard
from skd.study.spec import RunSpec

FINISHED = "2026-01-01T00:00:00+00:00"


def make_epoch(epoch: int, top1: float = 70.0, **changes: Any) -> EpochMetrics:
    """Return the metrics of an epoch with this test accuracy."""
    values = {
        "epoch": epoch,
        "learning_rate": 0.05,
        "train_losses": {"total": 1.0},
        "train_top1": 60.0,
        "test_loss": 1.0,
        "test_top1": top1,
        "test_top5": 90.0,
        "seconds": 1.0,
        "images_per_second": 1.0,
    }
    return EpochMetrics(**{**values, **changes})


def make_cost(**changes: Any) -> Cost:
    """Return a cost of ones."""
    values = {
        "train_seconds": 1.0,
        "seconds_per_epoch": 1.0,
        "images_per_second": 1.0,
        "peak_memory_bytes": 1,
        "parameters": 1,
        "extra_parameters": 0,
        "multiply_adds": 1,
        "sessions": 1,
    }
    return Cost(**{**values, **changes})


def make_record(
    spec: RunSpec, identity: str | None = None, top1: float = 70.0, **changes: Any
) -> Record:
    """Return a valid record; its first epoch is its best, a point above its last."""
    last = spec.recipe.epochs
    first = make_epoch(1, top1 + 1, test_top5=91.0)
    values = {
        "id": identity or spec.identity,
        "spec": spec,
        "environment": {"torch": "2"},
        "execution": {"device": "cpu"},
        "num_classes": 10,
        "epochs": (first, *(make_epoch(epoch, top1) for epoch in range(2, last + 1))),
        "last": Accuracy(epoch=last, top1=top1, top5=90.0),
        "best": Accuracy(epoch=1, top1=top1 + 1, top5=91.0),
        "cost": make_cost(),
        "files": {},
        "finished_at": FINISHED,
    }
    return Record(**{**values, **changes})


def make_failure(identity: str, reason: str = "loss is NaN", **changes: Any) -> Failure:
    """Return a failure note."""
    values = {
        "id": identity,
        "reason": reason,
        "kind": "TrainingError",
        "details": "Traceback",
        "epoch": 3,
        "failed_at": FINISHED,
        "environment": {},
    }
    return Failure(**{**values, **changes})


def make_card(identity: str, **changes: Any) -> TeacherCard:
    """Return a teacher's card."""
    values = {
        "id": identity,
        "kind": "trained",
        "network": "resnet20",
        "dataset": "digits",
        "origin": "trained here, seed 0",
        "test_top1": 97.25,
        "test_top5": 99.0,
        "sha256": "0" * 64,
        "parameters": 1,
    }
    return TeacherCard(**{**values, **changes})


def card_of(record: Record) -> TeacherCard:
    """Return the card of a teacher with this record."""
    return make_card(
        record.id,
        network=record.spec.network,
        test_top1=record.last.top1,
        test_top5=record.last.top5,
        sha256=record.files.get("weights.safetensors", "0" * 64),
    )


def leave_dead_lease(folder: Path) -> None:
    """Write the lease of a process that has ended."""
    holder = LeaseHolder("t", socket.gethostname(), os.getpid(), "another start", None, time.time())
    write_json(folder / "lease-1.json", asdict(holder))
