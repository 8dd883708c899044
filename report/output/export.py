"""The report's data as CSV and Parquet files, with a row for each run, epoch, cell, …"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import pandas as pd

from report.findings import Findings
from report.frames.analysis import measures_frame
from report.frames.cells import CellFinding, PairFinding
from report.frames.study_frames import WHOLE_NUMBERS
from report.statistics.intervals import CONFIDENCE, EQUIVALENCE_CONFIDENCE, Difference
from report.statistics.variance import VarianceSplit

VERDICT_COLUMNS = (
    "epoch",
    "difference",
    "low90",
    "high90",
    "low95",
    "high95",
    "verdict_at_epoch",
    "verdict",
    "least_margin",
    "more_seeds",
    "remarks",
)


def data_files(findings: Findings) -> dict[str, bytes]:
    """Return the contents of the data files by name. Equal findings give equal bytes."""
    frames = {
        "runs": findings.frames.runs.astype(WHOLE_NUMBERS),
        "epochs": findings.frames.epochs,
        "teachers": findings.frames.teachers,
        "cells": cells_frame(findings.pairs),
        "comparisons": comparisons_frame(findings.pairs),
        "variances": pd.DataFrame(
            [{"pair": pair, **asdict(split)} for pair, split in findings.variances.items()],
            columns=["pair", *(field.name for field in fields(VarianceSplit))],
        ),
    }
    if findings.analyses:
        frames["outputs"] = measures_frame(findings.analyses, findings.frames)
    files = {}
    for name, frame in frames.items():
        files[f"{name}.csv"] = frame.to_csv(index=False).encode()
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        files[f"{name}.parquet"] = buffer.getvalue()
    return files


def cells_frame(pairs: Sequence[PairFinding]) -> pd.DataFrame:
    """Return a row for each (pair, method, compared epoch), unrounded and in percent."""
    return pd.DataFrame(
        [
            _cell_values(pair, cell) | verdict
            for pair in pairs
            for cell in pair.cells
            for verdict in _verdict_rows(cell)
        ]
    )


def comparisons_frame(pairs: Sequence[PairFinding]) -> pd.DataFrame:
    """Return a row for each comparison of two methods: a minus b at the last epoch, in points."""
    rows = []
    for pair in pairs:
        for comparison in pair.comparisons:
            low, high = _bounds(comparison.difference)
            rows.append(
                {
                    "pair": comparison.pair,
                    "a": comparison.a,
                    "b": comparison.b,
                    "seeds": comparison.difference.n,
                    "difference": comparison.difference.mean,
                    "low95": low,
                    "high95": high,
                    "p": comparison.p,
                    "p_holm": comparison.p_holm,
                }
            )
    columns = ["pair", "a", "b", "seeds", "difference", "low95", "high95", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def _cell_values(pair: PairFinding, cell: CellFinding) -> dict[str, Any]:
    """Return the values of a cell that do not depend on the compared epoch."""
    last_low, last_high = cell.last.interval or (None, None)
    gain_low, gain_high = _bounds(cell.gain)
    published = cell.published
    return {
        "pair": cell.pair,
        "teacher": cell.teacher,
        "student": cell.student,
        "style": pair.style,
        "method": cell.method,
        "runs": cell.done,
        "expected": cell.expected,
        "last_mean": cell.last.mean,
        "last_sd": cell.last.sd,
        "last_low95": last_low,
        "last_high95": last_high,
        "last_top5_mean": cell.top5.mean,
        "last_top5_sd": cell.top5.sd,
        "best_mean": cell.best.mean,
        "best_sd": cell.best.sd,
        "gain": cell.gain.mean if cell.gain else None,
        "gain_low95": gain_low,
        "gain_high95": gain_high,
        "best_of_pair": pair.best_method == cell.method,
        "marks": "; ".join(mark.text for mark in cell.marks),
        "published": published.top1 if published else None,
        "published_top5": published.top5 if published else None,
        "published_epoch": published.reported_epoch if published else None,
        "published_runs": published.n_runs if published else None,
        "source": published.source if published else None,
    }


def _verdict_rows(cell: CellFinding) -> list[dict[str, Any]]:
    """Return the verdict at each compared epoch; one row of ``None`` without a verdict."""
    if cell.verdict is None:
        return [dict.fromkeys(VERDICT_COLUMNS)]
    rows = []
    for comparison in cell.verdict.comparisons:
        difference = comparison.difference
        low90, high90 = _bounds(difference, EQUIVALENCE_CONFIDENCE)
        low95, high95 = _bounds(difference)
        rows.append(
            {
                "epoch": comparison.epoch,
                "difference": difference.mean if difference else None,
                "low90": low90,
                "high90": high90,
                "low95": low95,
                "high95": high95,
                "verdict_at_epoch": comparison.kind,
                "verdict": cell.verdict.kind,
                "least_margin": comparison.least_margin,
                "more_seeds": comparison.more_seeds,
                "remarks": "; ".join(cell.verdict.remarks),
            }
        )
    return rows


def _bounds(
    difference: Difference | None, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    bounds = difference.interval(confidence) if difference else None
    return bounds or (None, None)
