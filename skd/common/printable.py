"""Text that a terminal prints literally. Uses only the standard library."""

from __future__ import annotations

import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Return text with control characters, except line breaks and tabs, replaced by U+FFFD.

    Halves of surrogate pairs are replaced too: no encoding can write them.
    """
    if text.isprintable():
        return text
    return "".join(
        REPLACEMENT if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in text
    )
