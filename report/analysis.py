"""Analyses of finished runs that need no training: ``results/<study>/analysis.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from report.frame import Frames
from report.statistics import Summary, summarise


class RunAnalysis(BaseModel):
    """One run's test-set outputs, looked at again."""

    model_config = ConfigDict(frozen=True)

    top1: FiniteFloat
    nll: FiniteFloat
    ece: FiniteFloat
    agreement: FiniteFloat | None = None


class Analysis(BaseModel):
    """The file: a study's runs by identity."""

    model_config = ConfigDict(frozen=True)

    study: str
    runs: dict[str, RunAnalysis]


@dataclass(frozen=True)
class AnalysisRow:
    """One method: mean over seeds and pairs."""

    method: str
    nll: Summary
    ece: Summary
    agreement: Summary


def read_analysis(path: Path) -> tuple[Analysis | None, str | None]:
    """Return the analysis, or none and, where the file is there but damaged, why."""
    try:
        return Analysis.model_validate_json(path.read_bytes()), None
    except FileNotFoundError:
        return None, None
    except (OSError, ValidationError) as error:
        return None, f"{path.name} cannot be read: {str(error).splitlines()[0]}"


def analysis_table(analysis: Analysis, frames: Frames) -> list[AnalysisRow]:
    """Return the analysed runs of each method. A run shared by pairs counts once."""
    rows = []
    for method, runs in frames.runs.groupby("method", sort=False):
        found = [analysis.runs[i] for i in runs["id"].unique() if i in analysis.runs]
        if found:
            agreements = [run.agreement for run in found if run.agreement is not None]
            rows.append(
                AnalysisRow(
                    method,
                    summarise(run.nll for run in found),
                    summarise(run.ece for run in found),
                    summarise(agreements),
                )
            )
    return rows
