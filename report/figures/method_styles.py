"""The look of every method in every figure: colour, dash pattern, marker and name.

A look depends on the method's name, so a method looks the same in all studies. The shipped methods
have fixed looks. A method and its combination with SKD (``kd`` and ``skd+kd``) share hue, dash
pattern and a pair of markers; the combination is lighter.

Any other method starts where the hash of its name points. A variant (``kd-T-8``) prefers the hue of
the shipped method that its name starts with. If two methods of a study meet, the later one in the
sheet takes the next free look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from typing import Any

from report.frames.cells import CONTROL, SKD
from report.names import Names

# A dark and a light tone of each hue. Relative luminance 0.13 and 0.28: the contrast is at least 3
# to 1 with the light and with the dark page, and the two tones differ in grey.
HUES = {
    "blue": ("#0464c2", "#3692fe"),
    "orange": ("#9d5005", "#e17401"),
    "green": ("#0c7442", "#01a760"),
    "purple": ("#8d41bb", "#bc70ee"),
    "red": ("#c1262d", "#f85d59"),
    "teal": ("#0b7075", "#18a1a7"),
    "magenta": ("#b62a7b", "#eb5eaa"),
    "olive": ("#68690a", "#969703"),
    "indigo": ("#5a53d2", "#8384ff"),
    "brown": ("#895c05", "#c4850a"),
}
DASHES = (
    "-",
    (0, (6, 1.6)),
    (0, (5, 1.3, 1.2, 1.3)),
    (0, (1.4, 1.2)),
    (0, (8, 1.3, 1.2, 1.3, 1.2, 1.3)),
)
MARKERS = (("o", "X"), ("s", "D"), ("^", "v"), ("<", ">"), ("P", "p"))  # by dash; dark and light
CONTROL_COLOUR = "#7d8590"  # contrast 3.8 with the light page, 4.8 with the dark one
FAMILIES = {  # hue, and number of the dash pattern
    SKD: ("red", 0),
    "kd": ("blue", 1),
    "dkd": ("orange", 2),
    "crd": ("green", 3),
    "reviewkd": ("purple", 4),
    # losses on logits
    "lskd": ("teal", 0),
    "dist": ("magenta", 1),
    "mlkd": ("olive", 2),
    "mlkd_two_views": ("olive", 3),
    "wttm": ("indigo", 3),
    "nkd": ("brown", 4),
    "ctkd": ("blue", 0),
    # losses on features and relations
    "fitnet": ("orange", 0),
    "at": ("green", 0),
    "sp": ("purple", 0),
    "vid": ("red", 1),
    "rkd": ("teal", 1),
    "pkt": ("magenta", 2),
    "ofd": ("indigo", 1),
    "srrl": ("brown", 2),
    "simkd": ("olive", 1),
    # students and teachers that suit each other
    "pesf": ("indigo", 0),
    "shake": ("brown", 0),
    "sftn": ("teal", 2),
    "soteacher": ("magenta", 0),
}


@dataclass(frozen=True)
class MethodStyle:
    """The look of a method in every figure.

    Attributes:
        colour: of its lines and marks.
        dash: matplotlib's line style.
        marker: matplotlib's marker.
        label: the name that figures show.
    """

    colour: str
    dash: Any
    marker: str = "o"
    label: str = ""


Look = tuple[str, bool, int]  # hue, whether it is the lighter tone, number of the dash pattern


def method_styles(methods: Sequence[str], names: Names) -> dict[str, MethodStyle]:
    """Return the style of each method of a study.

    All looks differ for up to as many methods as there are combinations of tone and dash pattern.
    """
    looks: dict[str, Look] = {method: look for method in methods if (look := _fixed_look(method))}
    for method in methods:
        if method not in looks and method != CONTROL:
            candidates = _candidates(method, looks.get(family(method)))
            taken = set(looks.values())
            looks[method] = next((look for look in candidates if look not in taken), candidates[0])
    return {
        method: _style(looks[method], names.method(method))
        if method in looks
        else MethodStyle(CONTROL_COLOUR, "-", "o", names.method(method))
        for method in methods
    }


def family(method: str) -> str:
    """Return the method that a combination with SKD is based on; of others, the method itself."""
    return method.removeprefix(f"{SKD}+")


def _fixed_look(method: str) -> Look | None:
    """Return the look of a shipped method or of its combination with SKD; else ``None``."""
    if (base := family(method)) not in FAMILIES:
        return None
    hue, dash = FAMILIES[base]
    return hue, base != method, dash


def _candidates(method: str, base: Look | None) -> list[Look]:
    """Return the looks that a method may have, best first.

    Args:
        method: its name.
        base: the look of the method that it combines with SKD; ``None`` without one.
    """
    name = family(method)
    light = name != method
    start = int(sha256(name.encode()).hexdigest(), 16)
    looks = [] if base is None else [(base[0], True, base[2])]
    known = next((part for part in _starts(name) if part in FAMILIES), None)
    for hues in ([] if known is None else [FAMILIES[known][0]], HUES):
        for tone in (light, not light):
            places = list(product(hues, range(len(DASHES))))
            first = start % len(places) if places else 0
            looks += [(hue, tone, dash) for hue, dash in places[first:] + places[:first]]
    return looks


def _starts(name: str) -> list[str]:
    """Return the beginnings of a name that end at a separator, longest first."""
    ends = [match.start() for match in re.finditer(r"[-+_. ]", name)]
    return [name[:end] for end in reversed(ends)]


def _style(look: Look, label: str) -> MethodStyle:
    hue, light, dash = look
    return MethodStyle(HUES[hue][light], DASHES[dash], MARKERS[dash][light], label)
