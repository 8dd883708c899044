"""The runs of each cell with links to their files. A click on a cell in the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from report.findings import Findings
from report.frames.cells import CellFinding
from report.output.protocol import method_settings_text
from skd.planning.batches import read_batches
from skd.store.store import Store

# Relative to the page, which is in <results>/<study>/report/.
STUDY_LINK, STORE_LINK = "..", "../.."
FILES = {"record": "record.json", "spec": "spec.json", "failure": "failure.json"}


@dataclass(frozen=True)
class RunDetail:
    """One run of a cell.

    Attributes:
        row: its row in the frame of runs.
        links: the run's existing files, by kind.
    """

    row: dict[str, Any]
    links: dict[str, str]


@dataclass(frozen=True)
class CellDetail:
    """One cell: its settings, its runs, and the log of its job."""

    cell: CellFinding
    terms: tuple[str, ...]
    transformations: tuple[str, ...]
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
    for cell in (cell for pair in findings.pairs for cell in pair.cells):
        node = expansion.cell_of(cell.teacher, cell.student, cell.method)
        terms, transformations = method_settings_text(node.spec.method)
        runs = tuple(
            RunDetail(rows[cell.pair, cell.method, seed], _file_links(store, identity))
            for seed, identity in cell.ids.items()
        )
        log = logs.get(node.key)
        has_log = log is not None and (results / expansion.study / log).is_file()
        log_link = f"{STUDY_LINK}/{log}" if has_log else None
        details.append(CellDetail(cell, terms, transformations, runs, log_link))
    return details


def _file_links(store: Store, identity: str) -> dict[str, str]:
    folder = store.run(identity).folder
    return {
        kind: f"{STORE_LINK}/runs/{identity}/{name}"
        for kind, name in FILES.items()
        if (folder / name).is_file()
    }
