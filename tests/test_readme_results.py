"""README's results and the report's picture are those of the committed records."""

from pathlib import Path

import pytest

from skd.study import Expansion
from tools.readme import BLOCK, PICTURE, REFERENCE, ROOT, block, digest, expanded


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Expansion, Path]:
    results = tmp_path_factory.mktemp("reference") / "results"
    return expanded(results), results


def test_readme_has_the_results_of_the_committed_records(reference) -> None:
    expansion, results = reference
    readme = BLOCK.search((ROOT / "README.md").read_text())
    assert readme[4].strip() == block(expansion, results).strip(), "stale: make readme"


def test_the_picture_is_of_the_page_as_it_is(reference) -> None:
    from report.render import render

    page = render(*reference)
    readme = BLOCK.search((ROOT / "README.md").read_text())
    assert readme[2] == f"page {digest(page)}", "stale: make readme"
    assert PICTURE.read_bytes().startswith(b"\x89PNG")


def test_every_run_of_the_reference_study_is_there(reference) -> None:
    expansion, _ = reference
    runs = {run for cell in expansion.cells for run in cell.runs.values()}
    assert {path.parent.name for path in REFERENCE.glob("runs/*/record.json")} >= runs
