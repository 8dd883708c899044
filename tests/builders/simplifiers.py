"""Simplifiers in float64, and their formulas in lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.simplifier import Simplifier, SimplifierSettings
from skd.terms import Outputs, TermContext
from tests.builders.formulas import log_softmax, softmax
from tests.builders.losses import draw


def context_of(classes: int) -> TermContext:
    """Return a context that shows nothing but the number of classes."""
    nothing = Outputs(torch.zeros(1, classes), (), (), torch.zeros(1, classes))
    return TermContext(classes, torch.arange(classes), 0, nothing, nothing)


def build(classes: int, seed: int | None = 0, **changes: Any) -> Simplifier:
    """Return a float64 simplifier; a seed makes all weights random, as after a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        simplifier = Simplifier(SimplifierSettings(**changes), context_of(classes)).double()
    if seed is not None:
        for place, parameter in enumerate(simplifier.parameters()):
            parameter.data = draw(1000 * seed + place, tuple(parameter.shape), 0.7)
    return simplifier


def attention(tokens: list[list[float]], mixed: list[list[float]], w: dict, s: Any) -> np.ndarray:
    """Return each token's output: of heads and projections through W_o, or of the rows."""
    width = len(w["query.weight"])
    d = width // s.heads
    count = len(tokens)

    def project(name: str, token: list[float], head: int) -> list[float]:
        rows = w[f"{name}.weight"][head * d : (head + 1) * d]
        return [math.fsum(a * b for a, b in zip(row, token, strict=True)) for row in rows]

    result = []
    for i in range(count):
        head_weights = []
        for head in range(s.heads):
            q = project("query", tokens[i], head)
            keys = [project("key", token, head) for token in tokens]
            scores = [sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(d) for k in keys]
            head_weights.append(softmax(scores))
        if s.values == "rows":
            mean = [sum(h[j] for h in head_weights) / s.heads for j in range(count)]
            result.append(
                [sum(mean[j] * mixed[j][c] for j in range(count)) for c in range(len(mixed[0]))]
            )
            continue
        joined: list[float] = []
        for head, weights in enumerate(head_weights):
            values = [project("value", token, head) for token in tokens]
            joined += [sum(weights[j] * values[j][e] for j in range(count)) for e in range(d)]
        result.append(
            [sum(a * b for a, b in zip(row, joined, strict=True)) for row in w["output.weight"]]
        )
    return np.array(result)


def reference(simplifier: Simplifier, logits: Tensor) -> np.ndarray:
    """z' = T·s by the formulas of docs and paper: softening, attention, combination."""
    s = simplifier.settings
    w = {name: value.tolist() for name, value in simplifier.state_dict().items()}
    softened, normed = [], []
    for row in logits.tolist():
        scaled = [x / s.temperature for x in row]
        kinds = {"log_softmax": log_softmax, "softmax": softmax, "scaled": list}
        h = kinds[s.softening](scaled)
        softened.append(h)
        if s.layer_norm:
            mean = sum(h) / len(h)
            spread = math.sqrt(sum((x - mean) ** 2 for x in h) / len(h) + 1e-5)
            gain, bias = w["norm.weight"], w["norm.bias"]
            h = [g * (x - mean) / spread + b for x, g, b in zip(h, gain, bias, strict=True)]
        normed.append(h)
    if s.axis == "batch":
        attended = attention(normed, softened, w, s)
    else:
        attended = np.array(
            [
                attention([[x] for x in tokens], [[x] for x in rows], w, s)[:, 0]
                for tokens, rows in zip(normed, softened, strict=True)
            ]
        )
    h = np.array(softened)
    combined = {"residual": h + attended, "mean": (h + attended) / 2, "attention": attended}
    return s.temperature * combined[s.combination]
