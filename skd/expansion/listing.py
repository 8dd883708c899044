"""The names that a study sheet may use, as tables for `skd list`: one function per kind."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table
from rich.text import Text

from skd.common.plugins import BrokenFileError
from skd.data import check_dataset, dataset_names
from skd.losses.discovery import broken_files
from skd.losses.methods import method_names, resolve_method, uses_partner
from skd.models import broken_networks, build_model, network_names
from skd.models.accounting import count_parameters, multiply_adds
from skd.study.sheet import SheetMethod, read_sheet
from skd.study.sheet_files import StudyError, find_sheet, no_studies_text, study_names


def studies_table() -> Table:
    """Return the studies with their titles, or with why a sheet cannot be read.

    Raises:
        StudyError: there is no study; the message names the folders that were searched.
    """
    names = study_names()
    if not names:
        raise StudyError(no_studies_text())
    table = Table("study", "title", box=None)
    for name in names:
        try:
            table.add_row(name, read_sheet(find_sheet(name)).title)
        except StudyError as error:
            table.add_row(name, _broken(error))
    return table


def networks_table() -> Table:
    """Return the networks with the size of their images, parameters and multiply-adds."""
    caption = "A sheet may also wrap networks of torchvision and timm: docs/networks.md."
    table = Table("network", box=None, caption=caption)
    for title in ("made for", "parameters", "multiply-adds (32x32, 100 classes)"):
        table.add_column(title, justify="right")
    for name in network_names():
        model = build_model(name, 100)
        size = f"{model.made_for} px" if model.made_for else "any size"
        table.add_row(name, size, f"{count_parameters(model):,}", f"{multiply_adds(model):,}")
    for reason in broken_networks():
        table.add_row(_broken(reason))
    return table


def datasets_table() -> Table:
    """Return the data sets."""
    table = Table("data set", "", box=None)
    for name in dataset_names():
        try:
            check_dataset(name)
            table.add_row(name)
        except BrokenFileError as error:
            table.add_row(name, _broken(error))
    return table


def methods_table() -> Table:
    """Return the methods with their terms' default settings."""
    table = Table("method", box=None, caption="Sums of methods are methods too, such as skd+kd.")
    table.add_column("terms, with their settings", overflow="fold")
    for name in [*method_names(), "skd+kd"]:
        try:
            method = resolve_method(SheetMethod(name=name), {})
        except StudyError as error:
            table.add_row(name, _broken(error))
            continue
        parts = [f"{term.term} {_settings(term.settings)}" for term in method.terms]
        parts += [f"{part.name} {_settings(part.settings)}" for part in method.transformations]
        if uses_partner(method):
            parts.append("only for teachers: trains one to suit a student (its partner)")
        table.add_row(name, "\n".join(parts))
    for name, reason in broken_files().items():
        table.add_row(name, _broken(reason))
    return table


def _broken(reason: object) -> Text:
    return Text(f"broken: {' '.join(str(reason).split())}", "red")


def _settings(settings: dict[str, Any]) -> str:
    return json.dumps(settings).replace('"', "").strip("{}")
