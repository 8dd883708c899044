"""The results and the picture in the documentation match the committed records."""

from pathlib import Path

import pytest

from tools.readme import PAGES, PICTURE, PICTURE_OF, PICTURED, PLACE, ROOT, Records, digest
from tools.reference import REFERENCE, kept_folders, referenced


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return Records(tmp_path_factory.mktemp("reference") / "results")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_committed_records_do(page: Path, records: Records) -> None:
    text = page.read_text()
    assert text.count("<!-- made by ") == text.count("<!-- end -->") == len(PLACE.findall(text)) > 0
    assert text == records.fill_page(text), "stale: make readme"


def test_the_picture_is_of_the_page_as_it_is(records: Records) -> None:
    picture = PICTURE_OF.search((ROOT / "README.md").read_text())
    assert picture[2] == digest(records.page(PICTURED)), "stale: make readme"
    assert PICTURE.read_bytes().startswith(b"\x89PNG")


def test_the_committed_records_are_those_of_the_reference_studies(tmp_path: Path) -> None:
    assert kept_folders() == referenced(tmp_path)
    runs = {path.parent for path in REFERENCE.glob("runs/*/record.json")}
    teachers = {path.parent for path in REFERENCE.glob("teachers/*/card.json")}
    assert runs | teachers == kept_folders()
