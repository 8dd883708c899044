"""The report's description of where and how the finished runs were executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from report.formats import value_text
from report.frames.study_frames import Frames

# What readers call the keys of records; dots separate nested keys.
LABELS = {
    "skd": "skd",
    "git_commit": "Git commit",
    "git_clean": "Working tree",
    "sources": "Digest of the sources",
    "python": "Python",
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "NumPy",
    "cpu": "CPU",
    "cpu_count": "CPU cores",
    "gpu": "GPU",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "gpu_driver": "GPU driver",
    "slurm_job": "SLURM job",
    "threads": "CPU threads",
    "step": "Training step",
    "teacher": "Teacher's outputs",
    "compiled": "torch.compile",
    "kernels": "Table of this project's kernels",
    "not_compiled": "Why nothing is compiled",
    "recording": "CUDA graph",
    "sharing": "Runs sharing the device",
    "processes": "Processes of a run",
    "accumulate": "Parts of a process's batch",
}
EXECUTION_LABELS = {"gpu": "GPU of compiled code or kernels"}  # else it is the machine's GPU
NOTHING = value_text(None)
VALUES = {
    "git_clean": {True: "as committed", False: "with changes"},
    "recording": {"not recorded": NOTHING},
    "step": {
        "fast": "fast (channels-last, fused SGD; on a GPU, a CUDA graph)",
        "eager": "eager (fast, without a CUDA graph)",
        "plain": "plain (none of the fast paths)",
    },
    "teacher": {
        "live": "computed at each step",
        "float16": "stored as float16",
        "float32": "stored as float32",
        None: "no teacher",
    },
}


def distinct_record_values(
    frames: Frames, part: Literal["environment", "execution"]
) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return the distinct values of each key in one part of the records, as readers call them.

    Each value comes with the number of runs that have it. A key without a value in any run is left
    out.
    """
    counts_by_key: dict[str, Counter[str]] = {}
    for record in frames.records.values():
        for key, value in _flat(getattr(record, part)).items():
            counts_by_key.setdefault(key, Counter())[_value_text(key, value)] += 1
    return [
        (_label(key, part), sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        for key, counts in counts_by_key.items()
        if set(counts) != {NOTHING}
    ]


def _label(key: str, part: str) -> str:
    labels = LABELS | EXECUTION_LABELS if part == "execution" else LABELS
    words = key.replace("_", " ")
    return labels.get(key, words[:1].upper() + words[1:])


def _value_text(key: str, value: Any) -> str:
    known = VALUES.get(key, {})
    # A list is not hashable; the known values are none.
    return known[value] if not isinstance(value, list) and value in known else value_text(value)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
