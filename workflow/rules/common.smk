# What the rules ask of a study. The expansion is made, where it is out of date, in a process of its
# own: this file is parsed by every job and imports no torch.

from pathlib import Path

from snakemake.exceptions import WorkflowError

from skd.study import StudyError, find_sheet, load_expansion

STUDIES = {}


def study(wildcards):
    name = wildcards.study
    if name not in STUDIES:
        try:
            STUDIES[name] = load_expansion(name, Path("results"))
        except StudyError as error:
            raise WorkflowError(str(error))
    return STUDIES[name]


def sheet(wildcards):
    return find_sheet(study(wildcards).study)


def cells(wildcards):
    folder = f"results/{wildcards.study}/cells"
    return [f"{folder}/{cell.path}.json" for cell in study(wildcards).cells]


def teacher_of(wildcards):
    name = study(wildcards).cell(wildcards.pair, wildcards.method).teacher
    if name is None:
        return []
    node = study(wildcards).teacher(name)
    return [f"results/{wildcards.study}/teachers/{name}-{node.id}.json"]
