"""Write the report's golden files: ``make goldens``. Review their diff before committing."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = re.compile(r"(?<=<style>).*?(?=</style>)|(?<=<script>).*?(?=</script>)", re.DOTALL)
GOLDENS = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT))

from report.output.write import write_report  # noqa: E402
from skd.cli.error_lines import run_command  # noqa: E402
from tests.builders.reported_study import filled  # noqa: E402
from tools.readme import without_drawings  # noqa: E402


def rendered(folder: Path) -> dict[str, str]:
    """Return the report of a small synthetic study in all formats, without drawings and styles."""
    page = write_report(filled(folder), folder)
    texts = {
        name: (page.parent / name).read_text(encoding="utf-8")
        for name in ("results.md", "results.tex")
    }
    return {**texts, page.name: SOURCES.sub("", without_drawings(page.read_text(encoding="utf-8")))}


def main() -> None:
    """Write the goldens."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in rendered(Path(scratch)).items():
            (GOLDENS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command("goldens", main)
