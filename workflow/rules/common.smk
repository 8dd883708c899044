# Functions of the rules. Every job parses this file, so it imports no torch. `load_expansion` expands
# an outdated study in a process of its own.

import os
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from skd.store.stale import finished_runs, stale_lines
from skd.common.errors import SkdError
from skd.planning.batches import save_batches, plan_batches, read_batches
from skd.jobs.workflow_config import WorkflowConfig
from skd.jobs.rule_outputs import (
    batch_file,
    report_code_changed,
    outdated_files,
    report_file,
    teacher_file,
    views_file,
)
from skd.planning.side_by_side import parse_side_by_side
from skd.planning.job_resources import (
    batch_job_resources,
    teacher_job_resources,
    views_job_resources,
)
from skd.jobs.shell_variables import remove_misleading
from skd.planning.estimates import default_device
from skd.planning.survey import survey_study
from skd.planning.timings import load_timings
from skd.study.sheet_files import find_sheet, sheet_files
from skd.store.store import Store
from skd.study.expansion_files import load_expansion

# The environment of jobs with `--software-deployment-method conda`. Other jobs use the environment of
# Snakemake.
ENVIRONMENT = "../../environment.yml"
RESULTS = Path("results")
# By the study's name. Each study is read once, when a rule needs it; the driver works on these studies.
EXPANSIONS = {}
BATCHES = {}
SURVEYS = {}

try:
    CONFIG = WorkflowConfig.read(
        config, workflow.overwrite_configfiles, workflow.config_settings.config_args or []
    )
except SkdError as error:
    raise WorkflowError(str(error))

# Snakemake's plugin parses the output of SLURM's commands.
removed = remove_misleading(os.environ)
if removed and workflow.is_main_process and shutil.which("sbatch"):
    print(f"not passed on to SLURM's commands: {', '.join(removed)}", file=sys.stderr)


def expansion_of(name):
    if name not in EXPANSIONS:
        try:
            EXPANSIONS[name] = load_expansion(CONFIG.sheet(name), RESULTS)
        except SkdError as error:
            raise WorkflowError(str(error))
    return EXPANSIONS[name]


def survey_of(name):
    if name not in SURVEYS:
        store = Store(RESULTS)
        timings = load_timings(store)
        try:
            device = default_device(expansion_of(name), timings, CONFIG.device_model)
            device = CONFIG.parallel_config.apply_to(device)
            CONFIG.parallel_config.check(expansion_of(name))
            side_by_side = parse_side_by_side(CONFIG.side_by_side)
        except SkdError as error:
            raise WorkflowError(f"config: {error}")
        SURVEYS[name] = survey_study(
            expansion_of(name), store, timings, device, side_by_side, CONFIG.views_config
        )
    return SURVEYS[name]


def batches_of(name):
    if name not in BATCHES:
        if workflow.is_main_process:
            BATCHES[name] = plan_batches(
                expansion_of(name), RESULTS, CONFIG.job_shape, lambda: survey_of(name).whole_seconds
            )
            finished = finished_runs(expansion_of(name), Store(RESULTS))
            force_outdated(name, finished)
            for line in stale_lines(CONFIG.sheet(name), finished):
                print(line, file=sys.stderr)
        else:  # a job uses the batches of its driver
            BATCHES[name] = read_batches(expansion_of(name), RESULTS)
    return BATCHES[name]


def force_outdated(name, finished):
    """Make Snakemake recreate files that no longer match the store, also in a dry run."""
    files = outdated_files(
        RESULTS / name,
        expansion_of(name),
        BATCHES[name].batches,
        Store(RESULTS),
        lambda: survey_of(name).views.values(),
    )
    if report_code_changed(RESULTS / name, finished):
        files.append(report_file(RESULTS / name))
    workflow.dag.forcefiles.update(map(str, files))
    if files:
        print(
            f"{name}: {len(files)} outdated output file(s), because runs, teachers, stored views or "
            f"code were removed or changed; made again: {', '.join(map(str, files[:3]))}"
            f"{', …' if len(files) > 3 else ''}",
            file=sys.stderr,
        )


def batch_files_of(name):
    return [str(batch_file(RESULTS / name, batch)) for batch in batches_of(name).batches]


def all_files_of(name):
    """The report and all cells: after a failed cell, the report may exist without it."""
    return lambda wildcards: [f"results/{name}/report/index.html", *batch_files_of(name)]


def cells(wildcards):
    return batch_files_of(wildcards.study)


def teachers(wildcards):
    """The cards of the teachers that the report shows: those from which runs learn."""
    expansion = expansion_of(wildcards.study)
    used = dict.fromkeys(cell.teacher for cell in expansion.cells if cell.teacher)
    return [teacher_card(wildcards.study, name) for name in used]


def sheet(wildcards):
    return CONFIG.sheet(wildcards.study)


def sheets(wildcards):
    return sheet_files(find_sheet(sheet(wildcards)))


def batch_of(wildcards):
    batch = batches_of(wildcards.study).find(wildcards.pair, wildcards.batch, wildcards.digest)
    if batch is None:
        raise WorkflowError(
            f"{wildcards.pair}/{wildcards.batch}-{wildcards.digest} is not a job of study "
            f"{wildcards.study}: its sheet, the code or the size of jobs changed; start again"
        )
    return batch


def methods_of(wildcards):
    return list(batch_of(wildcards).methods)


def teacher_card(name, teacher):
    return str(teacher_file(RESULTS / name, expansion_of(name).teacher(teacher)))


def ancient_if_complete(inputs, output):
    """Return inputs whose age is ignored if the output is complete.

    Identities are in the files' names, so a teacher that is made again is the same one. But if all
    inputs are ancient, Snakemake ignores that an output is missing or has to be made again.
    """
    complete = output.is_file() and str(output) not in workflow.dag.forcefiles
    return [ancient(path) for path in inputs] if complete else inputs


def teachers_of(wildcards):
    """The cards of the teachers of a batch: methods of one pair may have different ones."""
    batch = batch_of(wildcards)
    batch_cells = [expansion_of(wildcards.study).cell(batch.pair, name) for name in batch.methods]
    names = dict.fromkeys(cell.teacher for cell in batch_cells if cell.teacher)
    cards = [teacher_card(wildcards.study, name) for name in names]
    return ancient_if_complete(cards, batch_file(RESULTS / wildcards.study, batch))


def processes_of_teacher(wildcards):
    trained = expansion_of(wildcards.study).teacher(wildcards.teacher).spec.kind == "trained"
    return CONFIG.processes_per_run if trained else 1


def views_of(name, teacher):
    return survey_of(name).views[teacher]


def teacher_views_of(wildcards):
    batch = batch_of(wildcards)
    cells = {f"{batch.pair}/{method}" for method in batch.methods}
    folder = RESULTS / wildcards.study
    plans = survey_of(wildcards.study).views.values()
    files = [str(views_file(folder, plan)) for plan in plans if plan.cells & cells]
    return ancient_if_complete(files, batch_file(folder, batch))


def teacher_card_of_views(wildcards):
    file = views_file(RESULTS / wildcards.study, views_of(wildcards.study, wildcards.teacher))
    return ancient_if_complete([teacher_card(wildcards.study, wildcards.teacher)], file)


def views_resources(wildcards, attempt):
    survey = survey_of(wildcards.study)
    return views_job_resources(survey, wildcards.teacher, attempt, CONFIG.longest_minutes)


def teacher_resources(wildcards, attempt):
    survey = survey_of(wildcards.study)
    return teacher_job_resources(survey, wildcards.teacher, attempt, CONFIG.longest_minutes)


def batch_resources(wildcards, attempt):
    survey = survey_of(wildcards.study)
    return batch_job_resources(survey, batch_of(wildcards), attempt, CONFIG.longest_minutes)
