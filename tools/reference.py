"""Copy studies' finished records to results/reference/: ``make reference STUDY=NAME``.

Runs and teachers that do not belong to a study of `STUDIES` are removed from there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from skd.cli.error_lines import run_command  # noqa: E402
from skd.cli.results_folder import require_results  # noqa: E402
from skd.common.files import expand_home  # noqa: E402
from skd.store.store import Store, StoreEntry  # noqa: E402
from skd.study.expansion import Expansion  # noqa: E402
from skd.study.expansion_files import load_expansion  # noqa: E402

REFERENCE = ROOT / "results" / "reference"
STUDIES = (
    "demo",
    "cifar100-small",
    "student-friendly-small",
    "ablation-screen",
    "ablation-confirm",
    "ablation-long",
)
KEPT = ("spec.json", "record.json", "card.json")  # files of a run's or teacher's folder
ANALYSIS = ("analysis.json", "analysis.npz")


def entries(expansion: Expansion, results: Path) -> list[StoreEntry]:
    """Return the folders of a study's runs and teachers in a results folder."""
    store = Store(results)
    runs = {run for cell in expansion.cells for run in cell.runs.values()}
    return [store.run(run) for run in sorted(runs)] + [
        store.teacher(node.id) for node in expansion.teachers
    ]


def finished(entry: StoreEntry) -> bool:
    """Return whether a run or teacher has its record or card."""
    return entry.record() is not None or entry.card() is not None


def referenced(results: Path) -> set[Path]:
    """Return the folders of all runs and teachers of the reference studies.

    The studies are expanded in ``results``.
    """
    studies = (load_expansion(study, results) for study in STUDIES)
    return {entry.folder for study in studies for entry in entries(study, REFERENCE)}


def bring(study: str, results: Path) -> None:
    """Copy a study's records, cards and analysis."""
    copied = entries(load_expansion(study, results), results)
    if missing := sum(not finished(entry) for entry in copied):
        sys.exit(f"{study}: {missing} of {len(copied)} runs and teachers are not finished: run it")
    for entry in copied:
        _copy(entry.folder, REFERENCE / entry.folder.relative_to(results), KEPT)
    _copy(results / study, REFERENCE / study, ANALYSIS)


def prune(results: Path) -> None:
    """Remove the runs and teachers that do not belong to a reference study."""
    for folder in kept_folders() - referenced(results):
        shutil.rmtree(folder)


def kept_folders() -> set[Path]:
    """Return the existing folders of runs and teachers."""
    return {*REFERENCE.glob("runs/*"), *REFERENCE.glob("teachers/*")}


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def main() -> None:
    """Copy the given studies, then prune."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+", choices=STUDIES, help="a study's name")
    parser.add_argument(
        "--results", type=expand_home, default=ROOT / "results", help="their results folder"
    )
    arguments = parser.parse_args()
    require_results(arguments.results)
    for study in arguments.studies:
        bring(study, arguments.results)
    prune(arguments.results)


if __name__ == "__main__":
    run_command("reference", main)
