"""Writes the goldens anew, on purpose: python tests/golden/make.py. Then read their diff."""

import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from reported import filled  # noqa: E402

from report.render import render  # noqa: E402

DRAWN = re.compile(r"(<svg )[^>]*(>.*?</title><desc[^>]*>.*?</desc>).*?</svg>", re.DOTALL)


def rendered(folder: Path) -> dict[str, str]:
    """Return the small study's report in all formats; of a drawing, what it says of itself."""
    page = render(filled(folder), folder)
    texts = {name: (page.parent / name).read_text() for name in ("results.md", "results.tex")}
    return {**texts, "index.html": DRAWN.sub(r"\1\2</svg>", page.read_text())}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, text in rendered(Path(folder)).items():
            (HERE / name).write_text(text)
