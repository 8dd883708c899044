"""The margin of a study's report, in ``results/<study>/report-margin.json``.

The margin is a question to the results, not part of the study, so no sheet has it. `skd-report
--margin` stores it. Later reports, those of the workflow too, use it until another one is given.
"""

from __future__ import annotations

import math
from pathlib import Path

from report.statistics.verdicts import DEFAULT_MARGIN
from skd.common.errors import SkdError
from skd.common.files import read_json, write_json

KEY = "margin"


class MarginError(SkdError, ValueError):
    """A stored margin cannot be used. The message says what to do."""


def margin_path(results: Path, study: str) -> Path:
    """Return the file of a study's margin."""
    return results / study / "report-margin.json"


def store_margin(margin: float, results: Path, study: str) -> None:
    """Store the margin for later reports of a study. The default removes the stored margin."""
    path = margin_path(results, study)
    if margin == DEFAULT_MARGIN:
        path.unlink(missing_ok=True)
    else:
        write_json(path, {KEY: margin})


def stored_margin(results: Path, study: str) -> float | None:
    """Return the margin of a study's last report with --margin; ``None`` if it is the default.

    Raises:
        MarginError: the file is damaged.
    """
    path = margin_path(results, study)
    try:
        margin = read_json(path)[KEY]
        if isinstance(margin, int | float) and math.isfinite(margin) and margin >= 0:
            return float(margin)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise MarginError(f"{path} has no usable margin; remove the file, or give --margin")


def margin_of(results: Path, study: str) -> float:
    """Return the stored margin of a study, or the default.

    Raises:
        MarginError: the stored margin is damaged.
    """
    stored = stored_margin(results, study)
    return DEFAULT_MARGIN if stored is None else stored
