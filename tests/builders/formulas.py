"""Formulas in plain Python, from their definitions: references that share nothing with the code."""

import math
from collections.abc import Sequence

Row = list[float]
Rows = Sequence[Row]


def log_softmax(row: Row, temperature: float = 1.0) -> Row:
    """Return log(exp(z_c/T) / sum over k of exp(z_k/T)) for each class c."""
    scaled = [value / temperature for value in row]
    top = max(scaled)
    total = top + math.log(math.fsum(math.exp(value - top) for value in scaled))
    return [value - total for value in scaled]


def softmax(row: Row, temperature: float = 1.0) -> Row:
    """Return exp(z_c/T) / sum over k of exp(z_k/T) for each class c."""
    return [math.exp(value) for value in log_softmax(row, temperature)]


def nll(rows: Rows, labels: Sequence[int]) -> float:
    """Return the mean of -log q_y over the rows."""
    return -sum(log_softmax(row)[y] for row, y in zip(rows, labels, strict=True)) / len(rows)


def kl(p_logits: Rows, q_logits: Rows, temperature: float = 1.0) -> float:
    """Return the mean over the rows of sum over c of p_c·(log p_c - log q_c), softened by T."""
    total = 0.0
    for p_row, q_row in zip(p_logits, q_logits, strict=True):
        log_p, log_q = log_softmax(p_row, temperature), log_softmax(q_row, temperature)
        total += math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
    return total / len(p_logits)


def entropy(logits: Rows, temperature: float = 1.0) -> float:
    """Return the mean over the rows of -sum over c of p_c·log p_c, softened by T."""
    rows = [log_softmax(row, temperature) for row in logits]
    return -math.fsum(math.exp(a) * a for row in rows for a in row) / len(rows)
