"""Files of an analysed study and the places of its runs' files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from skd.analyses.records import Analysis, read_analysis, read_arrays
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from tests.builders import tiny

OTHER = "absent--resnet8"  # a pair whose teacher's file is missing
METHODS = ["student", "kd", "skd", {"name": "frozen", "like": "skd"}]
METHODS[3]["settings"] = {"simplifier": {"trainable": False}}
MEASURES = {"top1", "nll", "ece", "per_class_top1", "reliability", "source", "logits", "possible"}


def files(results: Path) -> tuple[Analysis, dict[str, np.ndarray]]:
    analysis = read_analysis(results / "tiny" / "analysis.json")
    assert analysis is not None
    return analysis, read_arrays(results / "tiny" / "analysis.npz")


def run_id(expansion: Expansion, method: str, seed: int = 0) -> str:
    pair = "resnet8" if method == "student" else tiny.PAIR
    return expansion.cell(pair, method).runs[seed]


def logits_of(entry: StoreEntry) -> np.ndarray:
    return load_file(entry.logits_path)["logits"].astype(np.float64)


def teacher_of(expansion: Expansion, results: Path) -> StoreEntry:
    return Store(results).teacher(expansion.teacher("teacher").id)


LOGITS = "test_logits.safetensors"
