"""The look of methods: the same in all studies, readable on both pages and in grey."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from report.figures.method_styles import (
    CONTROL_COLOUR,
    DASHES,
    FAMILIES,
    HUES,
    MARKERS,
    method_styles,
)
from report.figures.overview import VERDICT_LOOKS
from report.names import Names

STYLESHEET = Path("report/templates/style.css").read_text()
PAGES = re.findall(r"--page: (#\w{6})", STYLESHEET)  # light and dark
VARIABLES = [  # the methods' colours of the light and the dark page
    dict(re.findall(r"--([a-z]+(?:-light)?): (#\w{6})", block))
    for block in re.findall(r":root \{(.*?)\}", STYLESHEET, re.DOTALL)
]
COLOURS = [*(tone for tones in HUES.values() for tone in tones), CONTROL_COLOUR]
SHIPPED = ["student", *FAMILIES, *(f"skd+{name}" for name in FAMILIES if name != "skd")]


def luminance(colour: str) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def look(method: str, *others: str) -> tuple:
    style = method_styles([*others, method], Names())[method]
    return style.colour, style.dash, style.marker


@pytest.mark.parametrize("page", PAGES)
def test_colours_stand_out_from_the_page(page):
    assert len(PAGES) == 2
    for colour in [*COLOURS, *(colour for colour, _ in VERDICT_LOOKS.values())]:
        assert contrast(colour, page) >= 3, colour


def test_the_tones_of_a_hue_differ_in_grey():
    assert all(contrast(*tones) > 1.7 for tones in HUES.values())


def test_the_light_page_has_the_colours_of_the_files():
    for hue, tones in HUES.items():
        assert (VARIABLES[0][hue], VARIABLES[0][f"{hue}-light"]) == tones


@pytest.mark.parametrize("hue", HUES)
def test_the_dark_page_has_a_lighter_variant_of_each_colour(hue):
    tones = VARIABLES[1][hue], VARIABLES[1][f"{hue}-light"]
    assert all(luminance(tone) > luminance(own) for tone, own in zip(tones, HUES[hue], strict=True))
    assert contrast(tones[0], PAGES[1]) >= 4.5
    assert contrast(*tones) > 1.7


def test_shipped_methods_have_a_look_of_their_own():
    styles = method_styles(SHIPPED, Names())
    looks = [(style.colour, style.dash) for style in styles.values()]
    assert len(set(looks)) == len(SHIPPED)
    # Without colour, the five main methods still differ in both dash pattern and marker.
    main = [styles[name] for name in ("kd", "dkd", "crd", "reviewkd", "skd")]
    for a, b in combinations(main, 2):
        assert a.dash != b.dash
        assert a.marker != b.marker


def test_every_method_of_this_repository_has_a_fixed_look():
    files = {path.stem for path in Path("baselines").glob("[a-z]*.py")}
    assert files - {"cross_entropy", "simplifier"} <= FAMILIES.keys()


@pytest.mark.parametrize("base", [name for name in FAMILIES if name != "skd"])
def test_a_combination_with_skd_is_the_lighter_tone_of_its_base(base):
    colour, dash, marker = look(base)
    lighter, same_dash, partner = look(f"skd+{base}")
    tones = next(tones for tones in HUES.values() if colour in tones)
    assert (colour, lighter) == tones
    assert dash == same_dash
    assert (marker, partner) in MARKERS


def test_a_look_does_not_depend_on_the_study():
    for method in ("kd", "skd+crd", "mine", "skd+mine", "kd-T-8"):
        assert look(method) == look(method, "student", "dkd", "other")
    assert look("skd+mine")[0] == look("skd+mine", "mine")[0]
    assert look("mine")[0] != look("skd+mine", "mine")[0]


def test_variants_have_the_hue_of_what_their_name_starts_with():
    for variant, base in (("kd-T-8", "kd"), ("crd-with-kd", "crd"), ("sftn+kd", "sftn")):
        tones = next(tones for tones in HUES.values() if look(base)[0] in tones)
        assert look(variant)[0] in tones


def test_many_methods_of_a_study_all_look_different():
    most = 2 * len(HUES) * len(DASHES)
    methods = ["student", "kd", *(f"m{i}" for i in range(most - 1))]
    styles = method_styles(methods, Names())
    assert len({(style.colour, style.dash) for style in styles.values()}) == len(methods)
    more = [*methods, "one too many"]
    assert method_styles(more, Names()).keys() == set(more)
