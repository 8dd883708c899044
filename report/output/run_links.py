"""The runs behind each cell, with the files that they rest on: what a click on a cell shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from report.findings import Findings
from report.frames.cells import CellFinding
from report.output.protocol import method_settings_text
from skd.planning.batches import read_batches
from skd.store.store import Store

# From the page, which is in <results>/<study>/report/.
STUDY_LINK, STORE_LINK = "..", "../.."
FILES = {"record": "record.json", "spec": "spec.json", "failure": "failure.json"}


@dataclass(frozen=True)
class RunDetail:
    """One run of a cell.

    Attributes:
        row: its row of the frame of runs.
        links: files of the run that are there, by what they are.
    """

    row: dict[str, Any]
    links: dict[str, str]


@dataclass(frozen=True)
class CellDetail:
    """One cell: its settings, its runs, the job's log."""

    cell: CellFinding
    terms: tuple[str, ...]
    simplifier: str | None
    runs: tuple[RunDetail, ...]
    log: str | None


def cell_details(findings: Findings) -> list[CellDetail]:
    """Return every cell's runs and files, in the order of the tables."""
    expansion, results = findings.expansion, findings.results
    store = Store(results)
    rows = {
        (row["pair"], row["method"], row["seed"]): row
        for row in findings.frames.runs.to_dict("records")
    }
    logs = {
        f"{batch.pair}/{method}": f"logs/{batch.path}.log"
        for batch in read_batches(expansion, results).batches
        for method in batch.methods
    }
    details = []
    for pair in findings.pairs:
        for cell in pair.cells:
            node = expansion.cell_of(cell.teacher, cell.student, cell.method)
            terms, simplifier = method_settings_text(node.spec.method)
            runs = []
            for seed, identity in cell.ids.items():
                there = store.run(identity).folder
                links = {
                    what: f"{STORE_LINK}/runs/{identity}/{name}"
                    for what, name in FILES.items()
                    if (there / name).is_file()
                }
                runs.append(RunDetail(rows[cell.pair, cell.method, seed], links))
            log = logs.get(node.key)
            here = log is not None and (results / expansion.study / log).is_file()
            details.append(
                CellDetail(
                    cell, terms, simplifier, tuple(runs), f"{STUDY_LINK}/{log}" if here else None
                )
            )
    return details
