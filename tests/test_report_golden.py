"""The report of a fixed small result set, in all three formats, is what it was.

A golden changes on purpose only: ``python tests/golden/make.py``, then its diff is read.
"""

from pathlib import Path

from golden.make import HERE, rendered


def test_report_is_what_it_was(tmp_path: Path):
    found = rendered(tmp_path)
    assert set(found) == {path.name for path in HERE.iterdir() if path.suffix not in (".py", "")}
    for name, text in found.items():
        expected = (HERE / name).read_text()
        assert text.splitlines() == expected.splitlines(), f"{name}: see tests/golden/make.py"
