"""Whether two records of one identity have the same numbers, and how they differ. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skd.records import Record, TeacherCard

TIMES = {"seconds", "images_per_second"}


@dataclass(frozen=True)
class Side:
    """What a person needs of one of two results to see why they differ."""

    last: float  # accuracies in percent
    best: float | None
    device: str
    torch: str

    @classmethod
    def of(cls, record: Record | None, card: TeacherCard | None) -> Side | None:
        """Return the side of an entry; none where it has neither record nor card."""
        if record is not None:
            where = record.environment
            device = where.get("gpu") or where.get("cpu") or "an unknown device"
            if record.execution.get("device") == "cpu":
                device = where.get("cpu") or "CPU"
            best = record.best.top1
            return cls(record.last.top1, best, str(device), str(where.get("torch", "unknown")))
        return cls(card.test_top1, None, card.origin, "") if card else None


def numbers(record: Record) -> dict[str, Any]:
    """Return what the same training leaves on the same kind of machine: not time, cost or place."""
    files = {f"{name}'s content": sha256 for name, sha256 in record.files.items()}
    return {
        "epochs": [epoch.model_dump(exclude=TIMES) for epoch in record.epochs],
        "last": record.last,
        "best": record.best,
        "collapse": record.collapse,
        "number of classes": record.num_classes,
        "the teacher's weights": record.teacher.sha256 if record.teacher else None,
        **files,
    }


def differences(here: Record, there: Record) -> list[str]:
    """Return names of the numbers in which two records of one identity differ."""
    mine, yours = numbers(here), numbers(there)
    names = [name for name in {**mine, **yours} if mine.get(name) != yours.get(name)]
    if "epochs" in names:
        first = _first_difference(mine["epochs"], yours["epochs"])
        names[names.index("epochs")] = f"epochs, from {first}"
    return names


def card_differences(here: TeacherCard, there: TeacherCard) -> list[str]:
    """Return names of what differs between two cards of one teacher."""
    names = {"test_top1": "top-1", "test_top5": "top-5", "sha256": "the weights"}
    return [name for key, name in names.items() if getattr(here, key) != getattr(there, key)]


def _first_difference(mine: list[dict[str, Any]], yours: list[dict[str, Any]]) -> int:
    """Return the first epoch, from 1, that differs or that only one has."""
    same = [one == other for one, other in zip(mine, yours, strict=False)]
    return 1 + (same.index(False) if False in same else len(same))
