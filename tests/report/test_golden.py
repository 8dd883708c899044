"""The report of a fixed small result set is unchanged in all three formats.

Goldens change only on purpose: run ``make goldens`` and read the diff.
"""

from pathlib import Path

from tools.goldens import GOLDENS, rendered


def test_report_is_what_it_was(tmp_path: Path):
    output = rendered(tmp_path)
    assert set(output) == {path.name for path in GOLDENS.iterdir()}
    for name, text in output.items():
        expected = (GOLDENS / name).read_text()
        assert text.splitlines() == expected.splitlines(), f"{name}: see make goldens"
