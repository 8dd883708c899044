"""Line breaks never part a number from its unit; code and drawings stay as they are."""

import pytest

from report.formats import MINUS, number
from report.output.typography import NBSP, unbroken, unbroken_html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("23.5 % against 12.4 %.", "23.5_% against 12.4_%."),
        ("within ± 0.5 points (95 % interval)", "within ±_0.5_points (95_%_interval)"),
        ("93.18 ± 2.01, p = 0.03, p < 0.001, n = 3", "93.18_±_2.01, p_=_0.03, p_<_0.001, n_=_3"),
        ("60 s, 12 MiB, 1 epoch", "60_s, 12_MiB, 1_epoch"),
        ("3 of 8 pairs", "3 of 8_pairs"),
        ("2 spheres, 3 percentages, 1.0 minimal", "2 spheres, 3 percentages, 1.0 minimal"),
        (f"{MINUS}0.62 to +1.46", f"{MINUS}0.62 to +1.46"),
    ],
)  # fmt: skip
def test_units(text, expected):
    assert unbroken(text) == expected.replace("_", NBSP)


def test_only_text_is_changed():
    kept = (
        '<td title="3 points">', "<script>x = 3 % 2</script>", "<svg><text>3 points</text></svg>",
        "<pre>lr: 3 s\n<b>3 %</b></pre>", "<code>5 epochs</code>",
        "<style>a { width: 3 % }</style>",
    )  # fmt: skip
    page = "<p>3 points".join(kept)
    assert unbroken_html(page) == f"<p>3{NBSP}points".join(kept)


@pytest.mark.parametrize("value", [-0.0, -0.0004, 0.0004])
def test_zero_has_no_sign(value):
    assert number(value, 3) == "0.000"
