"""Checks of the simplified teachers: has one collapsed, and has any moved?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from report.formats import join_names, plural
from report.frames.outcomes import collapsed_runs
from report.frames.study_frames import (
    DIAGNOSTIC_PREFIX,
    UNCHANGED_BELOW,
    Frames,
    last_diagnostic_epochs,
)
from report.frames.without_simplifier import Remainder, base_of, remainders
from report.names import Names
from report.sanity.doubts import Doubt
from skd.study.expansion import Expansion

MAX_LINES = 12


def collapsed_simplifiers(frames: Frames, names: Names) -> list[Doubt]:
    """Return the runs in which the simplified teacher collapsed."""
    runs = collapsed_runs(frames)
    if runs.empty:
        return []
    lines = []
    for run in runs.to_dict("records"):
        since = run["collapse_epoch"]
        since = "" if since is None or since != since else f", from epoch {int(since)}"
        pair = names.pair((run["teacher"], run["student"]))
        lines.append(
            f"{pair}, {names.method(run['method'])}, seed {run['seed']}{since}: "
            f"{run['collapse_reason']}"
        )
    if more := len(lines) - MAX_LINES:
        lines = [*lines[:MAX_LINES], f"and {more} more"] if more > 0 else lines
    these, measure = (
        ("This run is", "measures") if len(runs) == 1 else ("These runs are", "measure")
    )
    text = (
        f"In {plural(len(runs), 'run')} the simplified teacher collapsed: it lost much of its "
        f"accuracy or nearly all of its information. {these} included in every mean, but "
        f"{measure} the cost of a collapse, not the method."
    )
    return [Doubt("collapsed-simplifier", "caution", text, tuple(lines))]


def unmoved_simplifiers(frames: Frames, expansion: Expansion, names: Names) -> list[Doubt]:
    """Return the methods whose simplifier has not changed its teacher in any run.

    A simplifier that the sheet freezes is not meant to change it.
    """
    watched, unmoved = _watched_and_unmoved(frames, expansion)
    if not unmoved:
        return []
    listed = [names.method(method) for method in unmoved]
    which, of = f"The simplifier of {join_names(listed)} has not", f" of {_any_of(listed)}"
    if len(unmoved) == len(watched):
        which, of = "No simplifier has", ""
    amounts_to = _amounts_to(remainders(expansion, unmoved), names)
    text = (
        f"{which} changed its teacher by the last epoch (KL divergence from the softened teacher "
        f"below {UNCHANGED_BELOW:g} nats), so no gain{of} is an effect of the simplifier"
        f"{': here ' if amounts_to else ''}{amounts_to}."
    )
    return [Doubt("unmoved-simplifier", "caution", text)]


def unmoved_methods(frames: Frames, expansion: Expansion) -> tuple[str, ...]:
    """Return the methods whose trained simplifier has not changed its teacher in any run."""
    return tuple(_watched_and_unmoved(frames, expansion)[1])


def _watched_and_unmoved(frames: Frames, expansion: Expansion) -> tuple[list[str], list[str]]:
    """Return the methods with diagnostics of a simplifier, and which of them are unmoved."""
    last = last_diagnostic_epochs(frames.epochs)
    if last.empty:
        return [], []
    largest = last.groupby("method")[f"{DIAGNOSTIC_PREFIX}kl_softened_simplified"].max()
    watched = [method for method in expansion.methods if method in largest.index]
    unmoved = [
        method
        for method in watched
        if largest[method] < UNCHANGED_BELOW and _is_trained(expansion, method)
    ]
    return watched, unmoved


def _amounts_to(remaining: Mapping[str, Remainder], names: Names) -> str:
    """Return what methods are without an effect of their simplifier, as a phrase."""
    texts = {"same": "", "twice": " at twice its weight"}
    phrases = [
        f"{names.method(method)} is {names.method(base_of(method))}{texts[remainder]}"
        for method, remainder in remaining.items()
        if remainder in texts
    ]
    adding = [names.method(method) for method, kind in remaining.items() if kind == "adds KD"]
    if adding:
        verb = "adds" if len(adding) == 1 else "add"
        phrases.append(f"{join_names(adding)} {verb} {names.method('kd')}'s term")
    return f"{', '.join(phrases[:-1])}, and {phrases[-1]}" if len(phrases) > 1 else "".join(phrases)


def _any_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def _is_trained(expansion: Expansion, method: str) -> bool:
    simplifiers = [cell.spec.method.simplifier for cell in expansion.cells if cell.method == method]
    return any(part and part.settings.get("trainable", True) for part in simplifiers)
