"""Faults of clusters: each job recovers by itself or ends with a message."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import tiny
from tests.slurm.cluster import Cluster
from tests.slurm.study import Study, numbers, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

# A run takes half a minute, which is time for faults; the teacher takes a moment.
LONG = {
    **tiny.SHEET,
    "recipe": {"epochs": 150, "milestones": [90]},
    "methods": ["kd", "skd"],
    "seeds": [0],
}
QUICK = {"checkpoint_seconds": 1, "job_minutes": 0}
KD = f"{tiny.PAIR}/kd"
SKD = f"{tiny.PAIR}/skd"


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Return the records of LONG's runs, trained without interruption or SLURM, by run."""
    study = Study(tmp_path_factory.mktemp("undisturbed"))
    study.write(LONG)
    assert study.run(profile="local") == 0, study.output
    return study.records()


@pytest.fixture(scope="module")
def undisturbed(calm: dict[str, dict]) -> dict[str, dict]:
    """Return the numbers of these records."""
    return {run: numbers(record) for run, record in calm.items()}


@pytest.fixture(scope="module")
def epochs_in_75_seconds(calm: dict[str, dict]) -> int:
    """Return a number of epochs that takes more than one job of a minute and less than two."""
    seconds = min(record["cost"]["seconds_per_epoch"] for record in calm.values())
    return max(2, round(75 / seconds))


def same(study: Study, undisturbed: dict[str, dict]) -> None:
    assert {run: numbers(record) for run, record in study.records().items()} == undisturbed


def test_preemption_a_dead_node_and_the_time_limit(
    make_cluster: Callable[..., Cluster],
    make_study: Callable[..., Study],
    undisturbed: dict[str, dict],
    epochs_in_75_seconds: int,
) -> None:
    cluster = make_cluster(
        nodes=2,
        gpus_per_node=1,
        partitions=("low PriorityTier=1 Default=YES", "high PriorityTier=9"),
        PreemptType="preempt/partition_prio",
        PreemptMode="REQUEUE",
    )
    study = make_study("requeued", LONG, **QUICK)
    driver = study.start()
    wait_until(lambda: study.has_started(KD) and study.has_started(SKD), "both cells to train", 180)
    jobs = {study.holders(key)[0]["job"] for key in (KD, SKD)}
    assert {cluster.node_of(job) for job in jobs} == {"node1", "node2"}

    # A job with precedence takes a GPU, and the other node loses power.
    command = ["-p", "high", "-w", "node1", "--gpus=1", "--output=/dev/null", "--wrap", "sleep 5"]
    cluster.run("sbatch", *command)
    cluster.kill_node("node2")
    wait_until(lambda: "SIGTERM: saving" in study.logs(), "the preempted job to save")
    wait_until(lambda: "down" in cluster.run("sinfo", "--noheader"), "the node to be down")

    # SLURM delays requeued jobs by two minutes. Meanwhile another study runs, whose jobs may
    # take a minute and whose training takes longer. It has the first study's teacher.
    recipe = {"epochs": epochs_in_75_seconds, "milestones": [epochs_in_75_seconds // 2]}
    sheet = {**LONG, "recipe": recipe, "methods": ["kd"]}
    short = make_study("short", sheet, longest_minutes=1, **QUICK)
    short.shared = study.results / "teachers"
    short_driver = short.start()
    wait_until(lambda: "back in SLURM's queue" in short.logs(), "the job's own clock", 240)
    cluster.start_node("node2")
    assert "time limit is 15 s away: saving" in short.logs()
    wait_until(lambda: "(BeginTime)" in short.skd("status", "tiny"), "the wait to be reported")
    assert not (short.results / "teachers").exists()
    plain = make_study("plain", sheet)
    plain.shared = study.results / "teachers"
    assert plain.run(profile="local") == 0, plain.output

    assert driver.wait(timeout=300) == 0, study.output
    assert short_driver.wait(timeout=300) == 0, short.output
    assert "Trying to restart" not in study.output + short.output  # these are not failed attempts
    same(study, undisturbed)
    same(short, {run: numbers(record) for run, record in plain.records().items()})
    records = [*study.records().values(), *short.records().values()]
    assert jobs < {record["environment"]["slurm_job"] for record in records}
    assert all(record["cost"]["sessions"] > 1 for record in records)


def test_killed_and_cancelled_jobs_and_a_killed_driver(
    make_cluster: Callable[..., Cluster],
    make_study: Callable[..., Study],
    undisturbed: dict[str, dict],
) -> None:
    cluster = make_cluster()
    study = make_study("cruel", LONG, **QUICK)
    driver = study.start()
    wait_until(lambda: study.has_started(KD) and study.has_started(SKD), "both cells to train", 180)

    # Each job has its own GPU.
    details = cluster.run("scontrol", "show", "job", "--details")
    assert {"GRES=gpu:1(IDX:0)", "GRES=gpu:1(IDX:1)"} <= set(details.split())

    # One job is cancelled: it saves.
    (lease,) = study.holders(KD)
    cluster.run("scancel", lease["job"])
    wait_until(lambda: not study.holders(KD), "the cancelled job to end")
    # The other job's training is killed: the job reports it.
    (lease,) = study.holders(SKD)
    os.kill(lease["pid"], signal.SIGKILL)
    wait_until(lambda: "killed by SIGKILL" in study.logs(), "the killed training to be reported")
    # Both are tried again.
    wait_until(lambda: study.output.count("Trying to restart") == 2, "two retries")
    wait_until(lambda: study.holders(KD) and study.holders(SKD), "both to train again", 180)
    jobs = {study.holders(key)[0]["job"] for key in (KD, SKD)}

    # The driver is killed. The next one finds its jobs, makes them save and continues.
    driver.kill()
    driver.wait()
    again = study.start()
    wait_until(lambda: "2 jobs of an earlier driver" in study.output, "the orphans")
    second = study.start()  # a second driver is refused
    assert second.wait(timeout=60) != 0
    assert "another Snakemake works on study tiny" in study.output
    assert again.wait(timeout=300) == 0, study.output
    same(study, undisturbed)
    for record in study.records().values():
        assert record["environment"]["slurm_job"] not in jobs
        assert record["cost"]["sessions"] in (3, 4)


def test_what_fails_by_itself_leaves_its_reason_and_the_others_alone(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    make_cluster()
    bad = {"name": "bad", "like": "kd", "recipe": {"learning_rate": 1e9, "weight_decay": 1e9}}
    sheet = {**tiny.SHEET, "methods": ["student", bad, "kd"], "seeds": [0]}
    study = make_study("bad", sheet, cells_per_job=2, checkpoint_seconds=1)
    assert study.run() != 0
    assert len(study.records()) == 2
    assert study.logs().count("FAILED") == 1  # a retry would only fail again
    assert "the loss was not finite in epoch 1" in study.page
    assert "the loss was not finite" in study.skd("status", "tiny")


def test_a_job_that_slurm_refuses_or_never_starts(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    cluster = make_cluster()
    sheet = {**tiny.SHEET, "methods": ["student"], "seeds": [0]}
    refused = make_study("refused", sheet, train={"gpu": 5}, retries=0)
    assert refused.run() != 0
    assert "Requested node configuration is not available" in refused.page

    # All GPUs are taken, and the deadline comes first.
    cluster.run("sbatch", "--gpus=2", "--output=/dev/null", "--wrap", "sleep 600")
    extra = {"slurm_extra": "'--deadline=now+2minutes'", "runtime": 1}
    waiting = make_study("waiting", sheet, train=extra, retries=0)
    driver = waiting.start()
    wait_until(lambda: "waits (Resources)" in waiting.skd("status", "tiny"), "the reason")
    assert driver.wait(timeout=180) != 0
    assert "DEADLINE" in waiting.page


def test_a_job_without_enough_memory_is_submitted_again_with_more(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study]
) -> None:
    make_cluster(JobAcctGatherParams="OverMemoryKill")
    sheet = {**LONG, "methods": ["student"]}
    study = make_study("memory", sheet, train={"mem_mb": "300 * 8 ** (attempt - 1)"}, **QUICK)
    assert study.run() == 0, study.output
    assert study.output.count("Trying to restart") == 1
    assert len(study.records()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(tmp_path: Path, undisturbed: dict[str, dict]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    study = Study(disk / "study")

    if os.system(f"mount -t tmpfs -o size=20m none {disk}") != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        study.write(LONG)
        assert "teacher teacher:" in study.skd("teacher", "tiny", "teacher", "--threads", "1")
        # As in the workflow: stored views are rounded in another way than a live teacher.
        assert "views" in study.skd("teacher-views", "tiny", "teacher", "--threads", "1")
        arguments = ["job", "train", "tiny", tiny.PAIR, "kd", "--checkpoint-seconds", "1"]
        free = shutil.disk_usage(disk).free
        (disk / "other").write_bytes(bytes(free - 500_000))
        assert "No space left on device" in study.skd(*arguments)
        assert not study.records()
        (disk / "other").unlink()
        output = study.skd(*arguments)
        assert "seed 0: last" in output, output
        (record,) = study.records().values()
        assert numbers(record) == undisturbed[record["id"]]
    finally:
        os.system(f"umount {disk}")
