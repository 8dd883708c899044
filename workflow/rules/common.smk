# What the rules ask of a study. The expansion is made, where it is out of date, in a process of its
# own: this file is parsed by every job and imports no torch.

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
from skd.study.expansion import load_expansion

# For jobs that make their environment, with `--software-deployment-method conda`; else they run in
# the one that Snakemake runs in.
ENVIRONMENT = "../../environment.yml"
RESULTS = Path("results")
# By name, as they are asked for: each is read once, and these are driven and reported on.
STUDIES = {}
BATCHES = {}
SURVEYS = {}

try:
    CONFIG = WorkflowConfig.read(
        config, workflow.overwrite_configfiles, workflow.config_settings.config_args or []
    )
except SkdError as error:
    raise WorkflowError(str(error))

# Snakemake's plugin parses what SLURM's commands print.
removed = remove_misleading(os.environ)
if removed and workflow.is_main_process and shutil.which("sbatch"):
    print(f"not passed on to SLURM's commands: {', '.join(removed)}", file=sys.stderr)


def study(name):
    if name not in STUDIES:
        try:
            STUDIES[name] = load_expansion(CONFIG.sheet(name), RESULTS)
        except SkdError as error:
            raise WorkflowError(str(error))
    return STUDIES[name]


def estimated(name):
    if name not in SURVEYS:
        store = Store(RESULTS)
        timings = load_timings(store)
        try:
            device = default_device(study(name), timings, CONFIG.device_model)
            device = CONFIG.parallel.on(device)
            CONFIG.parallel.check(study(name))
            together = parse_side_by_side(CONFIG.side_by_side)
        except SkdError as error:
            raise WorkflowError(f"config: {error}")
        SURVEYS[name] = survey_study(study(name), store, timings, device, together, CONFIG.views_config)
    return SURVEYS[name]


def batches(name):
    if name not in BATCHES:
        if workflow.is_main_process:
            BATCHES[name] = plan_batches(
                study(name), RESULTS, CONFIG.shape, lambda: estimated(name).whole_seconds
            )
            finished = finished_runs(study(name), Store(RESULTS))
            make_again(name, finished)
            for line in stale_lines(CONFIG.sheet(name), finished):
                print(line, file=sys.stderr)
        else:  # a job: as its driver has them
            BATCHES[name] = read_batches(study(name), RESULTS)
    return BATCHES[name]


def make_again(name, finished):
    """Have Snakemake make what tells of a run that is gone or another one, in a dry run as well."""
    files = outdated_files(
        RESULTS / name,
        study(name),
        BATCHES[name].batches,
        Store(RESULTS),
        lambda: estimated(name).views.values(),
    )
    if report_code_changed(RESULTS / name, finished):
        files.append(report_file(RESULTS / name))
    workflow.dag.forcefiles.update(map(str, files))
    if files:
        print(
            f"{len(files)} of {name}'s files tell of a run, teacher, stored views or code that "
            f"were removed or made anew since; made again: {', '.join(map(str, files[:3]))}"
            f"{', …' if len(files) > 3 else ''}",
            file=sys.stderr,
        )


def cells_of(name):
    return [str(batch_file(RESULTS / name, batch)) for batch in batches(name).batches]


def everything_of(name):
    """The report, and every cell: one that failed is missing even where the report is there."""
    return lambda wildcards: [f"results/{name}/report/index.html", *cells_of(name)]


def cells(wildcards):
    return cells_of(wildcards.study)


def teachers(wildcards):
    """The teachers that runs learn from: the report tells of them, too."""
    used = dict.fromkeys(cell.teacher for cell in study(wildcards.study).cells if cell.teacher)
    return [teacher_card(wildcards.study, name) for name in used]


def sheet(wildcards):
    return CONFIG.sheet(wildcards.study)


def sheets(wildcards):
    return sheet_files(find_sheet(sheet(wildcards)))


def batch_of(wildcards):
    batch = batches(wildcards.study).find(wildcards.pair, wildcards.batch, wildcards.digest)
    if batch is None:
        raise WorkflowError(
            f"{wildcards.pair}/{wildcards.batch}-{wildcards.digest} is no job of study "
            f"{wildcards.study}: its sheet, the code or the size of jobs changed; start again"
        )
    return batch


def methods_of(wildcards):
    return list(batch_of(wildcards).methods)


def teacher_card(name, teacher):
    return str(teacher_file(RESULTS / name, study(name).teacher(teacher)))


def unless_whole(inputs, output):
    """Inputs whose age does not count where the output is whole.

    Identities are in the files' names: a teacher that is made again is the same one. Where all inputs
    are ancient, though, Snakemake forgets that an output is missing or has to be made again.
    """
    whole = output.is_file() and str(output) not in workflow.dag.forcefiles
    return [ancient(path) for path in inputs] if whole else inputs


def teacher_of(wildcards):
    batch = batch_of(wildcards)
    name = study(wildcards.study).cell(batch.pair, batch.methods[0]).teacher
    cards = [] if name is None else [teacher_card(wildcards.study, name)]
    return unless_whole(cards, batch_file(RESULTS / wildcards.study, batch))


def processes_of_teacher(wildcards):
    trained = study(wildcards.study).teacher(wildcards.teacher).spec.kind == "trained"
    return CONFIG.processes_per_run if trained else 1


def views_of(name, teacher):
    return estimated(name).views[teacher]


def teacher_views_of(wildcards):
    batch = batch_of(wildcards)
    cells = {f"{batch.pair}/{method}" for method in batch.methods}
    folder = RESULTS / wildcards.study
    plans = estimated(wildcards.study).views.values()
    files = [str(views_file(folder, plan)) for plan in plans if plan.cells & cells]
    return unless_whole(files, batch_file(folder, batch))


def card_of_views(wildcards):
    file = views_file(RESULTS / wildcards.study, views_of(wildcards.study, wildcards.teacher))
    return unless_whole([teacher_card(wildcards.study, wildcards.teacher)], file)


def views_ask(wildcards, attempt):
    found = estimated(wildcards.study)
    return views_job_resources(found, wildcards.teacher, attempt, CONFIG.longest_minutes)


def teacher_asks(wildcards, attempt):
    found = estimated(wildcards.study)
    return teacher_job_resources(found, wildcards.teacher, attempt, CONFIG.longest_minutes)


def batch_asks(wildcards, attempt):
    found = estimated(wildcards.study)
    return batch_job_resources(found, batch_of(wildcards), attempt, CONFIG.longest_minutes)
