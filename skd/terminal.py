"""What a command prints, on any terminal. Imports no torch."""

from __future__ import annotations

import io
import sys


def tolerate_encoding() -> None:
    """Have standard output show ``?`` for what its encoding lacks, as in a C locale, and go on."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
