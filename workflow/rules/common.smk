# What the rules ask of a study. The expansion is made, where it is out of date, in a process of its
# own: this file is parsed by every job and imports no torch.

from pathlib import Path

from pydantic import ValidationError
from snakemake.exceptions import WorkflowError

from skd.errors import SkdError
from skd.jobs.batches import Shape, keep_batches, plan_batches, read_batches
from skd.jobs.gpu import gpu_state
from skd.jobs.launch import Parallel
from skd.jobs.packing import count
from skd.jobs.requests import batch_request, teacher_request, views_request
from skd.planning.model import usual_device
from skd.planning.survey import survey
from skd.planning.teacher_views import ViewsWish
from skd.planning.timings import load
from skd.sheet import explain
from skd.sheet_files import find_sheet, sheet_files
from skd.store import Store
from skd.study import load_expansion

# For jobs that make their environment, with `--software-deployment-method conda`; else they run in
# the one that Snakemake runs in.
ENVIRONMENT = "../../environment.yml"
RESULTS = Path("results")
# By name, as they are asked for: each is read once, and these are driven and reported on.
STUDIES = {}
BATCHES = {}
SURVEYS = {}

config.setdefault("study", "cifar100")
# The shape of jobs: workflow/profiles/slurm/jobs.yaml says what each means.
SHAPE = ("job_minutes", "cells_per_job")
# Which teachers' outputs are stored, likewise.
VIEWS = ("teacher_views", "teacher_views_precision", "teacher_views_gigabytes")
# In how many processes a run is trained, likewise.
PARALLEL = ("processes_per_run", "accumulate", "precision", "compile", "kernels")
config.setdefault("side_by_side", "auto")
config.setdefault("checkpoint_seconds", 60)
config.setdefault("longest_minutes", None)
config.setdefault("device_model", "a100" if gpu_state() else "cpu")


def study(name):
    if name not in STUDIES:
        try:
            STUDIES[name] = load_expansion(name, RESULTS)
        except SkdError as error:
            raise WorkflowError(str(error))
    return STUDIES[name]


def shape():
    try:
        return Shape(**{key: config[key] for key in SHAPE if key in config})
    except ValidationError as error:
        raise WorkflowError(explain("config", error))


def wish():
    try:
        return ViewsWish(**{key: config[key] for key in VIEWS if key in config})
    except ValidationError as error:
        raise WorkflowError(explain("config", error))


def parallel():
    try:
        return Parallel(**{key: config[key] for key in PARALLEL if key in config})
    except ValidationError as error:
        raise WorkflowError(explain("config", error))


def estimated(name):
    if name not in SURVEYS:
        store = Store(RESULTS)
        timings = load(store)
        try:
            device = usual_device(study(name), timings, config["device_model"])
            device = parallel().on(device)
            parallel().check(study(name))
            together = count(str(config["side_by_side"]))
        except SkdError as error:
            raise WorkflowError(f"config: {error}")
        SURVEYS[name] = survey(study(name), store, timings, device, together, wish())
    return SURVEYS[name]


def batches(name):
    if name not in BATCHES:
        if workflow.is_main_process:
            BATCHES[name] = plan_batches(
                study(name), RESULTS, shape(), lambda: estimated(name).whole_seconds
            )
        else:  # a job: as its driver has them
            BATCHES[name] = read_batches(study(name), RESULTS)
    return BATCHES[name]


def cells_of(name):
    return [f"results/{name}/cells/{batch.path}.json" for batch in batches(name).batches]


def everything_of(name):
    """The report, and every cell: one that failed is missing even where the report is there."""
    return lambda wildcards: [f"results/{name}/report/index.html", *cells_of(name)]


def cells(wildcards):
    return cells_of(wildcards.study)


def sheets(wildcards):
    return sheet_files(find_sheet(wildcards.study))


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
    return f"results/{name}/teachers/{teacher}-{study(name).teacher(teacher).id}.json"


def teacher_of(wildcards):
    batch = batch_of(wildcards)
    name = study(wildcards.study).cell(batch.pair, batch.methods[0]).teacher
    return [] if name is None else [teacher_card(wildcards.study, name)]


def processes_of_teacher(wildcards):
    trained = study(wildcards.study).teacher(wildcards.teacher).spec.kind == "trained"
    return parallel().processes_per_run if trained else 1


def views_of(name, teacher):
    return estimated(name).views[teacher]


def teacher_views_of(wildcards):
    batch = batch_of(wildcards)
    cells = {f"{batch.pair}/{method}" for method in batch.methods}
    return [
        f"results/{wildcards.study}/teacher-views/{teacher}-{plan.digest}.json"
        for teacher, plan in estimated(wildcards.study).views.items()
        if plan.cells & cells
    ]


def views_ask(wildcards, attempt):
    found = estimated(wildcards.study)
    return views_request(found, wildcards.teacher, attempt, config["longest_minutes"])


def teacher_asks(wildcards, attempt):
    found = estimated(wildcards.study)
    return teacher_request(found, wildcards.teacher, attempt, config["longest_minutes"])


def batch_asks(wildcards, attempt):
    found = estimated(wildcards.study)
    return batch_request(found, batch_of(wildcards), attempt, config["longest_minutes"])
