"""What the pages say of results, and the report's picture, are those of the committed records."""

from pathlib import Path

import pytest

from skd.study import load_expansion
from tools.readme import PAGES, PICTURE, PICTURE_OF, PICTURED, PLACE, ROOT, digest
from tools.readme import Reference as Records
from tools.reference import REFERENCE, STUDIES, entries


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return Records(tmp_path_factory.mktemp("reference") / "results")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_committed_records_do(page: Path, records: Records) -> None:
    text = page.read_text()
    assert text.count("<!-- made by ") == text.count("<!-- end -->") == len(PLACE.findall(text)) > 0
    assert text == records.filled(text), "stale: make readme"


def test_the_picture_is_of_the_page_as_it_is(records: Records) -> None:
    shown = PICTURE_OF.search((ROOT / "README.md").read_text())
    assert shown[2] == digest(records.page(PICTURED)), "stale: make readme"
    assert PICTURE.read_bytes().startswith(b"\x89PNG")


def test_the_committed_records_are_those_of_the_reference_studies(tmp_path: Path) -> None:
    expected = set()
    for study in STUDIES:
        expected |= {entry.folder for entry in entries(load_expansion(study, tmp_path), REFERENCE)}
    assert {*REFERENCE.glob("runs/*"), *REFERENCE.glob("teachers/*")} == expected
    finished = ("record.json", "card.json")
    empty = [f.name for f in expected if not any((f / name).is_file() for name in finished)]
    assert empty == []
