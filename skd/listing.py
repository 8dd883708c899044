"""What a study sheet may name, as tables for `skd list`: one function a kind."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table
from rich.text import Text

from skd.data import dataset_names
from skd.methods import SIMPLIFIER, method_names, resolve
from skd.models import build_model, network_names
from skd.models.accounting import count_parameters, multiply_adds
from skd.sheet import Method, find_sheet, read_sheet, study_names


def studies() -> Table:
    """Return the studies with their titles."""
    table = Table("study", "title", box=None)
    for name in study_names():
        table.add_row(name, Text(read_sheet(find_sheet(name)).title))
    return table


def networks() -> Table:
    """Return the networks with their sizes."""
    table = Table("network", box=None)
    for title in ("parameters", "multiply-adds (32x32, 100 classes)"):
        table.add_column(title, justify="right")
    for name in network_names():
        model = build_model(name, 100)
        table.add_row(name, f"{count_parameters(model):,}", f"{multiply_adds(model):,}")
    return table


def datasets() -> Table:
    """Return the data sets."""
    table = Table("data set", box=None)
    for name in dataset_names():
        table.add_row(name)
    return table


def methods() -> Table:
    """Return the methods with their terms' default settings."""
    table = Table("method", box=None, caption="Sums of methods are methods too: skd+kd and so on.")
    table.add_column("terms, with their settings", overflow="fold")
    for name in [*method_names(), "skd+kd"]:
        method = resolve(Method(name=name), {})
        parts = [f"{term.term} {_settings(term.settings)}" for term in method.terms]
        if method.simplifier:
            parts.append(f"{SIMPLIFIER} {_settings(method.simplifier.settings)}")
        table.add_row(name, "\n".join(parts))
    return table


def _settings(settings: dict[str, Any]) -> str:
    return json.dumps(settings).replace('"', "").strip("{}")
