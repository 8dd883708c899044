"""Formatting of values: signs, decimals, units and missing values."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report.statistics.intervals import CONFIDENCE, Difference, Summary
from skd.study.published import PublishedValue

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
EXACT_MARK = "\N{DAGGER}"  # of a published value whose number of runs is unstated
ONE_SEED = "one seed, no interval"
VERDICT_SYMBOLS = {
    "reproduced": "=", "higher": "↑", "lower": "↓", "inconclusive": "?", "not run": "·",
}  # fmt: skip


def absent(value: Any) -> bool:
    """Whether a value is missing: ``None``, NaN, or pandas' NA."""
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))


def number(value: float | None, decimals: int = 2) -> str:
    """Return a number with fixed decimals and a real minus sign; zero has no sign."""
    return ABSENT if absent(value) else f"{value:z,.{decimals}f}".replace("-", MINUS)


def signed(value: float | None, decimals: int = 2) -> str:
    """Return a difference with its sign; zero has no sign."""
    if absent(value):
        return ABSENT
    text = f"{value:+.{decimals}f}".replace("-", MINUS)
    return text[1:] if float(f"{value:.{decimals}f}") == 0 else text


def mean_and_sd(summary: Summary, decimals: int = 2) -> str:
    """Return mean ± sample standard deviation, or only the mean of a single value."""
    mean = number(summary.mean, decimals)
    return mean if summary.sd is None else f"{mean} ± {number(summary.sd, decimals)}"


def interval(difference: Difference, confidence: float = CONFIDENCE) -> str:
    """Return the confidence interval of a difference, or `ONE_SEED`."""
    bounds = difference.interval(confidence)
    return ONE_SEED if bounds is None else signed_range(bounds)


def signed_range(bounds: tuple[float, float]) -> str:
    """Return an interval of differences."""
    return f"{signed(bounds[0])} to {signed(bounds[1])}"


def number_range(bounds: tuple[float, float] | None) -> str:
    """Return an interval of values, or `ONE_SEED`."""
    return ONE_SEED if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def p_value(p: float | None) -> str:
    """Return a p-value with three decimals."""
    if absent(p):
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def divergence(nats: float | None) -> str:
    """Return a KL divergence with three decimals; one that would read 0 as an upper bound."""
    if absent(nats):
        return ABSENT
    return "< 0.001" if nats < 0.001 else number(nats, 3)


def p_equals(p: float | None) -> str:
    """Return a p-value as an equation, for use in a sentence."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def published_text(value: PublishedValue | None) -> str:
    """Return a published value with its epoch and number of runs."""
    if value is None:
        return "not available"
    runs = f", {plural(value.n_runs, 'run')}" if value.n_runs else EXACT_MARK
    epoch = "epoch unstated" if value.reported_epoch == "unstated" else value.reported_epoch
    return f"{number(value.top1)} ({epoch}{runs})"


def verdict_symbol(kind: str) -> str:
    """Return a verdict as one character."""
    return VERDICT_SYMBOLS[kind]


def count(value: float | None) -> str:
    """Return a whole number with a thousands separator."""
    return ABSENT if absent(value) else f"{round(value):,}".replace(",", "\u202f")


def mebibytes(value: float | None) -> str:
    """Return bytes as MiB."""
    return ABSENT if absent(value) else f"{count(value / 2**20)} MiB"


def duration(seconds: float | None) -> str:
    """Return seconds in a suitable unit: s, min or h."""
    if absent(seconds):
        return ABSENT
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def plural(n: int, noun: str, many: str | None = None) -> str:
    """Return a count and its noun."""
    return f"{n} {noun if n == 1 else many or noun + 's'}"


def join_names(names: list[str]) -> str:
    """Return names as a phrase, such as "a, b and c"; "none" for no names."""
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def value_text(value: Any) -> str:
    """Return a value of a record's environment or settings as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    return str(value)
