"""README's results and the report's picture are those of the committed records."""

from pathlib import Path

import pytest

from skd.study import Expansion, load_expansion
from tools.readme import BLOCK, PICTURE, ROOT, block, digest, expanded
from tools.reference import REFERENCE, STUDIES, entries


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


def test_the_committed_records_are_those_of_the_reference_studies(tmp_path: Path) -> None:
    expected = set()
    for study in STUDIES:
        expected |= {entry.folder for entry in entries(load_expansion(study, tmp_path), REFERENCE)}
    assert {*REFERENCE.glob("runs/*"), *REFERENCE.glob("teachers/*")} == expected
    finished = ("record.json", "card.json")
    empty = [f.name for f in expected if not any((f / name).is_file() for name in finished)]
    assert empty == []
