"""Writes README's results and the report's picture from the committed records: make readme.

The records are in results/reference/; a test renders them again and fails where README is stale.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from report.findings import find  # noqa: E402
from report.render import render  # noqa: E402
from report.tables.markdown import plain, table_markdown  # noqa: E402
from skd.study import Expansion, load_expansion  # noqa: E402
from tools.reference import REFERENCE  # noqa: E402

STUDY = "demo"
PICTURE = ROOT / "docs" / "report.png"
SIZE = (1280, 1500)
SHOWN = ("same-style", "different-style", "combinations")
BLOCK = re.compile(r"(<!-- results: made by `make readme` from )([^>]*)( -->\n)(.*?)(<!-- end -->)",
                   re.DOTALL)  # fmt: skip
DRAWN = re.compile(r"(<svg )[^>]*(>.*?</title><desc[^>]*>.*?</desc>).*?</svg>", re.DOTALL)


def expanded(folder: Path) -> Expansion:
    """Copy the committed records to a folder, and return the study expanded there."""
    shutil.copytree(REFERENCE, folder, dirs_exist_ok=True)
    return load_expansion(STUDY, folder)


def block(expansion: Expansion, results: Path) -> str:
    """Return README's results: the answer, and tables with their captions."""
    findings = find(expansion, results)
    tables = [findings.tables[key] for key in SHOWN if key in findings.tables]
    parts = [
        f"> {plain(' '.join(findings.headline))}\n",
        "<details><summary>The tables</summary>\n",
    ]
    parts += [table_markdown(table).replace("## ", "#### ", 1) for table in tables]
    return "\n".join([*parts, "</details>\n"])


def without_drawings(page: str) -> str:
    """Return a page's text with no more of its drawings than what they say of themselves."""
    return DRAWN.sub(r"\1\2</svg>", page)


def digest(page: Path) -> str:
    """Return a hash of the page that the picture shows."""
    return hashlib.sha256(without_drawings(page.read_text()).encode()).hexdigest()[:16]


def main() -> None:
    """Render, put the results into README, take the picture."""
    readme = ROOT / "README.md"
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results"
        expansion = expanded(results)
        page = render(expansion, results)
        made = block(expansion, results)
        text, count = BLOCK.subn(
            lambda m: f"{m[1]}page {digest(page)}{m[3]}\n{made}\n{m[5]}", readme.read_text()
        )
        if count != 1:
            sys.exit("README.md has no place for results: <!-- results: … --> … <!-- end -->")
        readme.write_text(text)
        browser = shutil.which("chromium") or sys.exit("the picture needs chromium")
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={scratch}/browser", f"--window-size={SIZE[0]},{SIZE[1]}",
             f"--screenshot={PICTURE}", page.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
