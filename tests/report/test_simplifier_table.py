"""The table of the simplified teacher's properties, against means computed by hand."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from report import formats
from report.findings import read_findings
from report.sanity.simplifiers import unmoved_simplifiers
from report.tables.simplifier import last_diagnostics, simplifier_table
from tests.builders.reported_study import filled


def test_the_table_has_the_last_epochs_means_and_marks_a_collapse(tmp_path: Path) -> None:
    table = read_findings(filled(tmp_path), tmp_path).tables["simplifier"]
    pair, method, top1, entropy, right, from_softened, to_student = table.rows[0]
    assert (pair.text, method.text) == ("ResNet-56 → ResNet-20", "SKD")
    assert top1.marks == (("collapsed", "1 collapsed"),)
    assert entropy.text == "3.60 → 4.00"  # of 3.7, 4.6 and 3.7
    assert right.text == "99.0 → 72.3"  # of 98.5, 20 and 98.5
    assert from_softened.text == "0.313"  # of 0.02, 0.9 and 0.02
    assert to_student.text == "0.300"
    assert {row[1].text for row in table.rows} == {"SKD", "SKD + KD", "T-8"}  # kd has none


def test_a_divergence_that_would_read_zero_is_an_upper_bound() -> None:
    texts = [formats.divergence(nats) for nats in (0.0, 0.0009, 0.001, 0.3134, None)]
    assert texts == ["< 0.001", "< 0.001", "0.001", "0.313", formats.ABSENT]


def test_of_each_run_the_last_epoch_counts_and_what_was_not_watched_is_left_out() -> None:
    rows = [
        ("p", "skd", "a", 1, 9.0),
        ("p", "skd", "a", 2, 1.0),
        ("p", "skd", "b", 1, 3.0),
        ("p", "kd", "c", 1, None),
    ]
    names = ["pair", "method", "id", "epoch", "diagnostic_entropy"]
    means = last_diagnostics(pd.DataFrame(rows, columns=names))
    assert means.to_dict() == {"entropy": {("p", "skd"): 2.0}}
    assert last_diagnostics(pd.DataFrame(rows, columns=names).iloc[3:]).empty
    assert last_diagnostics(pd.DataFrame(columns=names[:-1])).empty


def test_diagnostics_of_other_losses_are_not_the_simplifiers(tmp_path: Path) -> None:
    findings = read_findings(filled(tmp_path), tmp_path)
    others = findings.frames.epochs.assign(**{"diagnostic_pesf/kl_raw_adapted": 0.5})
    own = [name for name in others if name.startswith("diagnostic_") and "/" not in name]

    def methods(epochs: pd.DataFrame) -> set[str]:
        table = simplifier_table(replace(findings.frames, epochs=epochs), findings.pairs)
        return {row[1].text for row in table.rows} if table else set()

    assert methods(others) == {"skd", "skd+kd", "T-8"}
    without = replace(findings.frames, epochs=others.drop(columns=own))
    assert methods(without.epochs) == set()
    assert not unmoved_simplifiers(without, findings.expansion, findings.names)
