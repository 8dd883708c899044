"""Differences between two records or cards with the same identity. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skd.store.records import Record, TeacherCard

TIMING_FIELDS = {"seconds", "images_per_second"}


@dataclass(frozen=True)
class ResultSide:
    """Accuracy and origin of one of two results that differ."""

    last: float  # accuracies in percent
    best: float | None
    device: str
    torch: str
    environment: Mapping[str, Any] = field(default_factory=dict)  # empty for a card alone

    @classmethod
    def from_record(cls, record: Record | None, card: TeacherCard | None) -> ResultSide | None:
        """Return the side of an entry; ``None`` if it has neither record nor card."""
        if record is not None:
            environment = record.environment
            device = environment.get("gpu") or environment.get("cpu") or "an unknown device"
            if record.execution.get("device") == "cpu":
                device = environment.get("cpu") or "CPU"
            best = record.best.top1
            torch = str(environment.get("torch", "unknown"))
            return cls(record.last.top1, best, str(device), torch, environment)
        return cls(card.test_top1, None, card.origin, "") if card else None


def reproducible_numbers(record: Record) -> dict[str, Any]:
    """Return the numbers that the same training reproduces on the same kind of machine."""
    files = {f"{name}'s content": sha256 for name, sha256 in record.files.items()}
    return {
        "epochs": [epoch.model_dump(exclude=TIMING_FIELDS) for epoch in record.epochs],
        "last": record.last,
        "best": record.best,
        "collapse": record.collapse,
        "number of classes": record.num_classes,
        "the teacher's weights": record.teacher.sha256 if record.teacher else None,
        **files,
    }


def record_differences(here: Record, there: Record) -> list[str]:
    """Return the names of the numbers in which two records with one identity differ."""
    mine, yours = reproducible_numbers(here), reproducible_numbers(there)
    names = [name for name in {**mine, **yours} if mine.get(name) != yours.get(name)]
    if "epochs" in names:
        first = _first_difference(mine["epochs"], yours["epochs"])
        names[names.index("epochs")] = f"epochs, from {first}"
    return names


def card_differences(here: TeacherCard, there: TeacherCard) -> list[str]:
    """Return the names of the values in which two cards of one teacher differ."""
    names = {"test_top1": "top-1", "test_top5": "top-5", "sha256": "the weights"}
    return [name for key, name in names.items() if getattr(here, key) != getattr(there, key)]


def commit_text(environment: Mapping[str, Any]) -> str:
    """Return the commit in a record's environment, and whether there were uncommitted changes."""
    commit = environment.get("git_commit")
    if commit is None:
        return "commit not known"
    clean = environment.get("git_clean")
    words = {True: "clean", None: "not known whether clean"}
    return f"commit {commit}, {words.get(clean, 'WITH UNCOMMITTED CHANGES')}"


def same_code(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool | None:
    """Return whether two environments have the same code; ``None`` if that is not known.

    The digests of the sources decide if both are recorded. Otherwise, the same commit without
    changes is the same code. Different commits may have the same sources.
    """
    mine, yours = here.get("sources"), there.get("sources")
    if mine is not None and yours is not None:
        return mine == yours
    clean = here.get("git_clean") is True and there.get("git_clean") is True
    commits = here.get("git_commit"), there.get("git_commit")
    return True if clean and commits[0] is not None and commits[0] == commits[1] else None


def code_text(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Return a line on whether two results come from the same code, and on the differences."""
    same = same_code(here, there)
    commits = [commit_text(side) for side in (here, there)]
    digests = [side.get("sources") for side in (here, there)]
    sources = [f"sources {digest}" if digest else "sources not recorded" for digest in digests]
    if same:
        return f"made by the same code: {commits[0] if None in digests else sources[0]}"
    head = "not known whether the same code made both" if same is None else "made by different code"
    return f"{head}: {_both_sides(*commits)}; {_both_sides(*sources)}"


def _both_sides(mine: str, yours: str) -> str:
    return f"{mine} (both)" if mine == yours else f"{mine} (here), {yours} (there)"


def _first_difference(mine: list[dict[str, Any]], yours: list[dict[str, Any]]) -> int:
    """Return the first epoch, counted from 1, that differs or that only one list has."""
    same = [my_epoch == your_epoch for my_epoch, your_epoch in zip(mine, yours, strict=False)]
    return 1 + (same.index(False) if False in same else len(same))
