# What the rules ask of a study. The expansion is made, where it is out of date, in a process of its
# own: this file is parsed by every job and imports no torch.

from pathlib import Path

from snakemake.exceptions import WorkflowError

from skd.sheet import StudyError, find_sheet, sheet_files
from skd.study import load_expansion

# For jobs that make their environment, with `--software-deployment-method conda`; else they run in
# the one that Snakemake runs in.
ENVIRONMENT = "../../environment.yml"
STUDIES = {}  # by name, as they are asked for: each is read once, and these are reported on


def study(name):
    if name not in STUDIES:
        try:
            STUDIES[name] = load_expansion(name, Path("results"))
        except StudyError as error:
            raise WorkflowError(str(error))
    return STUDIES[name]


def cells_of(name):
    return [f"results/{name}/cells/{cell.path}.json" for cell in study(name).cells]


def everything_of(name):
    """The report, and every cell: one that failed is missing even where the report is there."""
    return lambda wildcards: [f"results/{name}/report/index.html", *cells_of(name)]


def cells(wildcards):
    return cells_of(wildcards.study)


def sheets(wildcards):
    return sheet_files(find_sheet(wildcards.study))


def teacher_of(wildcards):
    expansion = study(wildcards.study)
    name = expansion.cell(wildcards.pair, wildcards.method).teacher
    if name is None:
        return []
    return [f"results/{wildcards.study}/teachers/{name}-{expansion.teacher(name).id}.json"]
