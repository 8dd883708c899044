"""Spaces that a line break must not replace: between a number and its unit, and in p = 0.03."""

from __future__ import annotations

import re

NBSP = "\N{NO-BREAK SPACE}"
UNITS = (
    r"%|points?|nats?|s|min|h|ms|Ki?B|Mi?B|Gi?B|TB|epochs?|seeds?|runs?|pairs?|images|steps?|"
    r"minutes?|seconds?|hours?|interval"
)
# "23.5 %", "3 of 8 pairs", "± 0.5", "p = 0.03", "n = 3", "A1 to A6" stays breakable.
NUMBER_AND_UNIT = re.compile(rf"(?<=\d) (?=(?:{UNITS})(?![\w-]))")
PERCENT_INTERVAL = re.compile(r"(?<=\d\N{NO-BREAK SPACE}%) (?=interval)")
SIGN_AND_NUMBER = re.compile(r"(?<=[±=<>≤≥]) (?=[\d\N{MINUS SIGN}+])")
NAME_AND_SIGN = re.compile(r"(?<=\b[pnT]) (?=[=<>≤≥])")
SPREAD = re.compile(r"(?<=\d) (?=± ?\d|±\N{NO-BREAK SPACE}\d)")
# Text between tags. What is inside these elements stays as it is.
VERBATIM = re.compile(
    r"(<(script|style|svg|pre|code|template|textarea|select)\b.*?</\2>|<[^>]*>)", re.DOTALL
)


def unbroken(text: str) -> str:
    """Return a text in which numbers keep to their units, and signs to their numbers."""
    text = SIGN_AND_NUMBER.sub(NBSP, NAME_AND_SIGN.sub(NBSP, text))
    text = SPREAD.sub(NBSP, NUMBER_AND_UNIT.sub(NBSP, text))
    return PERCENT_INTERVAL.sub(NBSP, text)


def unbroken_html(page: str) -> str:
    """Return a page with `unbroken` applied to its text, not to scripts, code or drawings."""
    parts, end = [], 0
    for verbatim in VERBATIM.finditer(page):
        parts += [unbroken(page[end : verbatim.start()]), verbatim[0]]
        end = verbatim.end()
    return "".join([*parts, unbroken(page[end:])])
