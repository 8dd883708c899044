"""The report of a fixed small result set, in all three formats, is what it was.

A golden changes on purpose only: ``make goldens``, then its diff is read.
"""

from pathlib import Path

from tools.goldens import GOLDENS, rendered


def test_report_is_what_it_was(tmp_path: Path):
    found = rendered(tmp_path)
    assert set(found) == {path.name for path in GOLDENS.iterdir()}
    for name, text in found.items():
        expected = (GOLDENS / name).read_text()
        assert text.splitlines() == expected.splitlines(), f"{name}: see make goldens"
