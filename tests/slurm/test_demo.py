"""The whole demo study on SLURM, as typed; and with accounting as the source of states."""

import re
import threading
from collections.abc import Callable

import pytest
import tiny

from slurm.cluster import Cluster
from slurm.conftest import Study

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_the_demo_to_its_report(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    cluster = make_cluster()
    study = make_study("demo", tiny.SHEET, precommand="touch prepared")
    seen: set[frozenset[str]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            shown = cluster.run("scontrol", "show", "job", "--details")
            running = [job for job in shown.split("\n\n") if "JobState=RUNNING" in job]
            gpus = [gpu for job in running for gpu in re.findall(r"gpu:1\(IDX:(\d)\)", job)]
            assert len(gpus) == len(set(gpus)), gpus
            seen.add(frozenset(gpus))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = study.run(seconds=800, target="demo")
    done.set()
    watcher.join()
    assert status == 0, study.said
    assert len(study.records()) == 39
    assert (study.folder / "prepared").exists()  # so are modules loaded, and conda activated
    assert (study.results / "demo" / "report" / "index.html").exists()
    assert frozenset("01") in seen  # two at once, each on its own
    logs = "\n".join(p.read_text() for p in (study.results / "demo" / "logs").rglob("*.log"))
    devices = dict(re.findall(r"SLURM job (\d+) on \S+, GPU (\S+),", logs))
    assert set(devices.values()) == {"0", "1"}
    # 13 small cells in few jobs, and one for the report.
    assert len(devices) == 2 + 3
    plan = study.skd("plan", "demo")
    assert "in all" in plan


def test_accounting_as_the_source_of_states(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    cluster = make_cluster(accounting=True)
    sheet = {**tiny.SHEET, "methods": ["student"], "seeds": [0]}
    gres = {"gpu": 0, "gres": "'gpu:1'"}  # as on clusters that take only --gres
    study = make_study("accounted", sheet, train=gres, slurm_status_command="sacct")
    assert study.run() == 0, study.said
    (record,) = study.records().values()
    known = cluster.run("sacct", "--noheader", "--format=JobIDRaw,State", "--parsable2", "-X")
    assert ", GPU 0, " in study.logs()
    assert f"{record['environment']['slurm_job']}|COMPLETED" in known
