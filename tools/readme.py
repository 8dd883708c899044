"""Write the results in the pages, and the picture of the report: ``make readme``.

The results come from the records in results/reference/. A test generates them again and fails if a
page is stale. Two marks in a page name the study and the tables (or `answer`) between them::

    <!-- made by `make readme` from STUDY: answer TABLE … -->
    <!-- end -->
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from report.findings import Findings, read_findings  # noqa: E402
from report.output.write import write_report  # noqa: E402
from report.tables.markdown import escape_markdown, table_markdown  # noqa: E402
from skd.cli.error_lines import run_command  # noqa: E402
from skd.study.expansion_files import load_expansion  # noqa: E402
from tools.reference import REFERENCE  # noqa: E402

PAGES = (ROOT / "README.md", ROOT / "docs" / "reproduction.md", ROOT / "docs" / "demo.md")
PLACE = re.compile(
    r"(<!-- made by `make readme` from (?P<study>[\w-]+): (?P<parts>[\w -]+) -->\n)"
    r"(?P<made>.*?)(?=<!-- end -->)",
    re.DOTALL,
)
PICTURE = ROOT / "docs" / "report.png"
PICTURED = "cifar100-small"
SIZE = (1280, 1500)
PICTURE_OF = re.compile(r"(<!-- the picture is of the page )(\w*)( -->)")
DRAWN = re.compile(r"(<svg )[^>]*(>.*?</title><desc[^>]*>.*?</desc>).*?</svg>", re.DOTALL)


class Records:
    """A copy of the committed records as a results folder, in which studies can be expanded."""

    def __init__(self, results: Path) -> None:
        shutil.copytree(REFERENCE, results, dirs_exist_ok=True)
        self._results = results
        self.findings = cache(self._find)

    def _find(self, study: str) -> Findings:
        return read_findings(load_expansion(study, self._results), self._results)

    def page(self, study: str) -> Path:
        """Render a study's report, and return its page."""
        return write_report(load_expansion(study, self._results), self._results)

    def render_parts(self, study: str, parts: str) -> str:
        """Return a study's part of a page: its headline, and tables with their captions.

        Raises:
            KeyError: the study's report has no such table.
        """
        findings = self.findings(study)
        rendered = [
            "\n>\n".join(f"> {escape_markdown(text)}" for text in findings.headline) + "\n"
            if part == "answer"
            else table_markdown(findings.tables[part]).replace("## ", "#### ", 1)
            for part in parts.split()
        ]
        return "\n" + "\n".join(rendered) + "\n"

    def fill_page(self, text: str) -> str:
        """Return a page's text with all generated parts updated."""
        return PLACE.sub(lambda m: m[1] + self.render_parts(m["study"], m["parts"]), text)


def without_drawings(page: str) -> str:
    """Return a page's text with its drawings reduced to their titles and descriptions."""
    return DRAWN.sub(r"\1\2</svg>", page)


def digest(page: Path) -> str:
    """Return a hash of the page in the picture."""
    return hashlib.sha256(without_drawings(page.read_text(encoding="utf-8")).encode()).hexdigest()[
        :16
    ]


def main() -> None:
    """Update the pages, and take the picture."""
    with tempfile.TemporaryDirectory() as scratch:
        records = Records(Path(scratch) / "results")
        page = records.page(PICTURED)
        for path in PAGES:
            text = records.fill_page(path.read_text(encoding="utf-8"))
            if not PLACE.search(text):
                sys.exit(
                    f"{path.name} has no place for results: <!-- made by `make readme` from … -->"
                )
            path.write_text(PICTURE_OF.sub(rf"\g<1>{digest(page)}\g<3>", text), encoding="utf-8")
        browser = shutil.which("chromium") or sys.exit("the picture needs chromium")
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={scratch}/browser", f"--window-size={SIZE[0]},{SIZE[1]}",
             f"--screenshot={PICTURE}", page.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    run_command("readme", main)
