"""The output of `skd show`, as rows, as JSON, and as an error."""

import json
from typing import Any

from tests.builders.commands import Skd

ENVIRONMENT = {
    "skd": "0.1.0",
    "git_commit": "c0ffee",
    "git_clean": True,
    "torch": "2.15.0",
    "gpu": "NVIDIA [H100]",
    "host": "node7",
    "slurm_job": "4711",
}
EXECUTION = {"device": "cuda", "threads": 2, "sessions": ["torch 2.14, A100", "torch 2.15, H100"]}
WEIGHTS = b"weights"


def printed_rows(skd: Skd, *arguments: str) -> dict[str, str]:
    """Return the printed rows by name; the lines of a section are under the section's name."""
    status, out, err = skd("show", *arguments)
    assert (status, err) == (0, "")
    rows: dict[str, str] = {}
    name = section = ""
    for line in out.splitlines():
        if line and not line.startswith(" "):
            name = section = line.strip()
        elif line.strip():
            head, _, rest = line.strip().partition("  ")
            if line.startswith("  ") and line[2] != " " and rest:
                name, line = f"{section}/{head}", rest
            rows[name] = f"{rows.get(name, '')}\n{line.strip()}".strip()
    rows["title"] = out.splitlines()[0]
    return rows


def printed_json(skd: Skd, *arguments: str) -> dict[str, Any]:
    status, out, _ = skd("show", *arguments, "--json")
    assert status == 0
    (entry,) = json.loads(out)["entries"]
    return entry


def printed_error(skd: Skd, *arguments: str) -> str:
    status, out, err = skd("show", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("skd: ")
    return err
