"""Everything in the report as data files: CSV and Parquet, one row a run, epoch, cell, …"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, fields

import pandas as pd

from report.findings import Findings
from report.frames.analysis import measures_frame
from report.frames.cells import CellFinding, PairFinding
from report.frames.study_frames import WHOLE_NUMBERS
from report.statistics.intervals import EQUIVALENCE_CONFIDENCE
from report.statistics.variance import VarianceSplit


def data_files(findings: Findings) -> dict[str, bytes]:
    """Return the files' contents by name; the same findings give the same bytes."""
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
    """Return a row a (pair, method, epoch compared): numbers unrounded, accuracies in percent."""
    return pd.DataFrame([row for pair in pairs for cell in pair.cells for row in _rows(pair, cell)])


def comparisons_frame(pairs: Sequence[PairFinding]) -> pd.DataFrame:
    """Return a row a comparison of two methods: a minus b at the last epoch, in points."""
    rows = []
    for pair in pairs:
        for found in pair.comparisons:
            low, high = found.difference.interval() or (None, None)
            rows.append(
                {
                    "pair": found.pair,
                    "a": found.a,
                    "b": found.b,
                    "seeds": found.difference.n,
                    "difference": found.difference.mean,
                    "low95": low,
                    "high95": high,
                    "p": found.p,
                    "p_holm": found.p_holm,
                }
            )
    columns = ["pair", "a", "b", "seeds", "difference", "low95", "high95", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def _rows(pair: PairFinding, cell: CellFinding) -> list[dict]:
    last_low, last_high = cell.last.interval or (None, None)
    gain = cell.gain
    gain_low, gain_high = (gain.interval() if gain else None) or (None, None)
    shared = {
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
        "gain": gain.mean if gain else None,
        "gain_low95": gain_low,
        "gain_high95": gain_high,
        "best_of_pair": pair.best == cell.method,
        "marks": "; ".join(mark.text for mark in cell.marks),
        "published": cell.published.top1 if cell.published else None,
        "published_top5": cell.published.top5 if cell.published else None,
        "published_epoch": cell.published.reported_epoch if cell.published else None,
        "published_runs": cell.published.n_runs if cell.published else None,
        "source": cell.published.source if cell.published else None,
    }
    blank = dict.fromkeys(
        ("epoch", "difference", "low90", "high90", "low95", "high95", "verdict_at_epoch", "verdict",
         "least_margin", "more_seeds", "remarks")
    )  # fmt: skip
    if cell.verdict is None:
        return [{**shared, **blank}]
    rows = []
    for comparison in cell.verdict.comparisons:
        found = comparison.difference
        narrow = (found.interval(EQUIVALENCE_CONFIDENCE) if found else None) or (None, None)
        wide = (found.interval() if found else None) or (None, None)
        rows.append(
            {
                **shared,
                "epoch": comparison.epoch,
                "difference": found.mean if found else None,
                "low90": narrow[0],
                "high90": narrow[1],
                "low95": wide[0],
                "high95": wide[1],
                "verdict_at_epoch": comparison.kind,
                "verdict": cell.verdict.kind,
                "least_margin": comparison.least_margin,
                "more_seeds": comparison.more_seeds,
                "remarks": "; ".join(cell.verdict.remarks),
            }
        )
    return rows
