"""Names in sheets, which become parts of file names. Imports no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

# The folder, within the working directory, that commands and jobs write to.
RESULTS_NAME = "results"
MAX_FILE_NAME_BYTES = 255  # bytes, on all common file systems
# The longest file name built from names is the folder of a batch's SLURM logs: study, teacher,
# student, first method, separators, a number and a digest.
MAX_NAME_LENGTH = 50


def validate_name(name: str) -> str:
    """Return a name if it can be part of a file name.

    Raises:
        ValueError: it is too long, or has characters that are not allowed.
    """
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"'{name[:20]}…' has {len(name)} characters; a name becomes part of file names, and "
            f"has at most {MAX_NAME_LENGTH}"
        )
    if not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9+_.])*", name):
        raise ValueError(
            f"'{name}': names consist of letters, digits and, not at the start, + _ . and single -"
        )
    return name


def validate_path(path: Path) -> Path:
    """Return a path if a file can have it.

    Raises:
        ValueError: a part of it is too long.
    """
    for part in path.parts:
        if (length := len(os.fsencode(part))) > MAX_FILE_NAME_BYTES:
            raise ValueError(
                f"'{part[:20]}…' has {length} bytes; a file's name has at most "
                f"{MAX_FILE_NAME_BYTES}"
            )
    return path


Name = Annotated[str, AfterValidator(validate_name)]
