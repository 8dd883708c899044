"""The picture of the result: gains over the student alone, by pair or as a mean over pairs."""

import re

import pytest

from report.figures import gains
from report.figures.method_styles import method_styles
from report.findings import Findings, read_findings
from report.names import Names
from report.statistics.intervals import Difference
from tests.builders.reported_study import filled


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Findings:
    folder = tmp_path_factory.mktemp("results")
    return read_findings(filled(folder), folder)


def drawn(findings: Findings) -> list[str]:
    """Return the descriptions of the figures."""
    methods = findings.expansion.methods
    styles = method_styles(methods, findings.names)
    jobs = gains.gain_figures(findings.pairs, methods, styles, findings.names)
    figures = [job() for job in jobs]
    return [re.search(r"<desc[^>]*>(.*?)</desc>", figure.inline)[1] for figure in figures]


def test_a_pair_has_a_panel_with_its_gains_intervals_and_published_gains(findings):
    first, second, third = drawn(findings)
    gain = findings.pairs[0].cell("kd").gain
    low, high = gain.interval()
    # Published: 70.66 of kd and 69.06 of the student alone.
    assert f"KD +{gain.mean:.2f} (+{low:.2f} to +{high:.2f}, published +1.60)" in first
    assert "The teacher: +3.63." in first  # 72.63, and a mean of 69.00 of the student alone
    assert "KD +2.20 (one seed, no interval, published +" in second
    assert "The teacher" not in second  # it has no card
    assert "DKD +6.43" in third


def test_many_pairs_share_a_panel_of_the_mean_over_pairs(findings, monkeypatch):
    monkeypatch.setattr(gains, "MAX_PANELS", 2)
    (text,) = drawn(findings)
    by_seed = [(70.0 - 68.0 + 70.2 - 68.0 + 66.0 - 64.5) / 3]  # the common seed of three pairs
    assert "Mean over 3 pairs: KD" in text
    assert f"KD +{sum(by_seed):.2f} (one seed, no interval" in text
    assert "DKD +6.43" in text
    assert "over 1 pair)" in text


def test_a_display_name_is_no_formula(findings):
    """Matplotlib would read text between dollar signs as mathematics, and fail here."""
    names = Names({"kd": r"KD $\bad{x$", "skd": "<a> & b_c"}, {})
    methods = findings.expansion.methods
    (job, *_) = gains.gain_figures(findings.pairs, methods, method_styles(methods, names), names)
    assert "$" in job().svg


def test_nothing_is_drawn_without_a_gain(findings):
    assert gains.gain_figures([], ["student", "kd"], {}, Names()) == []


def test_one_wide_interval_does_not_hide_the_other_gains():
    narrow = gains.GainRow("kd", Difference(3, 2.0, 0.1, 2))
    wide = gains.GainRow("skd", Difference(2, 1.0, 9.0, 1))
    low, high = gains._limits([gains.GainPanel("x", "x", (narrow, wide))])
    assert low < 0
    assert 2 < high < 5
    low, high = gains._limits([gains.GainPanel("x", "x", (narrow,), teacher=6.0)])
    assert -0.5 < low < 0
    assert 6 < high < 7


def test_methods_with_and_without_a_simplifier_stand_apart():
    rows = [
        gains.GainRow(name, Difference(1, 0.0, None, None), with_simplifier=with_simplifier)
        for name, with_simplifier in (("kd", False), ("dkd", False), ("skd", True))
    ]
    assert gains._levels(rows) == [0, 1, 2.5]
