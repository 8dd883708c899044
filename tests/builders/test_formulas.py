"""The reference formulas against Decimal arithmetic."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from tests.builders.formulas import entropy, kl, log_softmax, nll, softmax


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_formulas_are_those_of_exact_arithmetic(scale, temperature):
    p_rows, q_rows = np.random.default_rng(0).normal(0, scale, (2, 3, 5)).tolist()
    labels = [0, 4, 2]
    with localcontext() as context:
        context.prec = 150

        def exact(rows, temperature):
            powers = [[(Decimal(z) / Decimal(temperature)).exp() for z in row] for row in rows]
            return [[power / sum(row) for power in row] for row in powers]

        p, q = exact(p_rows, temperature), exact(q_rows, temperature)
        pairs = [
            (a, b)
            for p_row, q_row in zip(p, q, strict=True)
            for a, b in zip(p_row, q_row, strict=True)
        ]
        expected_kl = float(sum(a * (a / b).ln() for a, b in pairs) / 3)
        expected_entropy = float(-sum(a * a.ln() for a, _ in pairs) / 3)
        rows = exact(p_rows, 1)
        expected_nll = float(-sum(row[y].ln() for row, y in zip(rows, labels, strict=True)) / 3)
        logs, values = ([float(x) for x in row] for row in ([a.ln() for a in p[0]], p[0]))
    close = {"rel": 1e-12, "abs": 1e-12}
    assert log_softmax(p_rows[0], temperature) == pytest.approx(logs, **close)
    assert softmax(p_rows[0], temperature) == pytest.approx(values, **close)
    assert kl(p_rows, q_rows, temperature) == pytest.approx(expected_kl, **close)
    assert entropy(p_rows, temperature) == pytest.approx(expected_entropy, **close)
    assert nll(p_rows, labels) == pytest.approx(expected_nll, **close)
