"""The whole demo study on SLURM, as typed; and with accounting as the source of states."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.builders import tiny
from tests.slurm.cluster import Cluster
from tests.slurm.study import Study, numbers

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_the_demo_to_its_report(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    cluster = make_cluster()
    study = make_study("demo", tiny.SHEET, precommand="touch prepared")
    seen_devices: set[frozenset[str]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            jobs = cluster.run("scontrol", "show", "job", "--details")
            running = [job for job in jobs.split("\n\n") if "JobState=RUNNING" in job]
            gpus = [gpu for job in running for gpu in re.findall(r"gpu:1\(IDX:(\d)\)", job)]
            assert len(gpus) == len(set(gpus)), gpus
            seen_devices.add(frozenset(gpus))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = study.run(seconds=800, target="demo")
    done.set()
    watcher.join()
    assert status == 0, study.output
    assert len(study.records()) == 30
    assert (study.folder / "prepared").exists()  # as for loading modules and activating conda
    assert (study.results / "demo" / "report" / "index.html").exists()
    assert frozenset("01") in seen_devices  # two in parallel, each on its own GPU
    logs = "\n".join(p.read_text() for p in (study.results / "demo" / "logs").rglob("*.log"))
    devices = dict(re.findall(r"SLURM job (\d+) on \S+, GPU (\S+),", logs))
    assert set(devices.values()) == {"0", "1"}
    # The teacher, its views, and 10 small cells in two jobs: the student alone, and the pair.
    assert len(devices) == 1 + 1 + 2
    plan = study.skd("plan", "demo")
    assert "in all" in plan


def test_accounting_as_the_source_of_states(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    cluster = make_cluster(accounting=True)
    sheet = {**tiny.SHEET, "methods": ["student"], "seeds": [0]}
    gres = {"gpu": 0, "gres": "'gpu:1'"}  # as on clusters that take only --gres
    study = make_study("accounted", sheet, train=gres, slurm_status_command="sacct")
    assert study.run() == 0, study.output
    (record,) = study.records().values()
    known = cluster.run("sacct", "--noheader", "--format=JobIDRaw,State", "--parsable2", "-X")
    assert ", GPU 0, " in study.logs()
    assert f"{record['environment']['slurm_job']}|COMPLETED" in known


def test_a_run_in_two_processes_of_a_job_and_on_two_nodes_by_srun(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    cluster = make_cluster(nodes=2, gpus_per_node=2)
    recipe = {"epochs": 3, "milestones": [2], "batch_size": 32, "bn_batch": 16}
    sheet = {**tiny.SHEET, "methods": ["kd"], "seeds": [0]}
    sheet |= {"recipe": {**recipe, "last_batch": "drop"}}
    study = make_study("together", sheet, processes_per_run=2, teacher_views="never")
    assert study.run() == 0, study.output + study.logs()
    (by_job,) = study.records().values()
    assert by_job["execution"]["processes"] == 2

    results = study.results.rename(study.folder / "of-the-job")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "1"]
    torchrun += ["--rdzv-endpoint", "localhost:29517", "--module", "skd", "train", "tiny"]
    torchrun += [tiny.PAIR, "kd", "--threads", "1", "--results", str(study.results)]
    steps = ["srun", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1"]
    environment = {**study.environment, "SKD_TEACHERS": str(results / "teachers")}
    environment["OMP_NUM_THREADS"] = "1"
    assert cluster.run("sinfo", "--noheader")
    done = subprocess.run(
        [*steps, *torchrun],
        cwd=study.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (by_hand,) = study.records().values()
    assert by_hand["execution"]["processes"] == 2
    assert numbers(by_hand) == numbers(by_job)
