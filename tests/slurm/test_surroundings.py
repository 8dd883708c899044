"""A user's own surroundings: results on another disk, variables that change what SLURM prints."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import tiny
from tests.slurm.cluster import Cluster
from tests.slurm.study import Study, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

# Each of these variables hides jobs or makes SLURM's output unreadable.
HOSTILE = {
    "SLURM_TIME_FORMAT": "relative",
    "SQUEUE_FORMAT2": "name",
    "SQUEUE_PARTITION": "none",
    "SQUEUE_STATES": "COMPLETED",
    "SACCT_FORMAT": "user",
    "SINFO_FORMAT": "%P",
    "SCANCEL_STATE": "PENDING",
    "SBATCH_WAIT": "1",
}
ENDLESS = {
    **tiny.SHEET,
    "recipe": {"epochs": 100_000, "milestones": [90]},
    "methods": ["student"],
    "seeds": [0],
}
CELL = "resnet8/student"


def test_jobs_are_found_through_links_and_in_spite_of_the_shells_variables(
    make_cluster: Callable[..., Cluster], make_study: Callable[..., Study], tmp_path: Path
) -> None:
    cluster = make_cluster()
    study = make_study(
        "linked",
        ENDLESS,
        checkpoint_seconds=1,
        precommand="export SLURM_TIME_FORMAT=relative",  # as a profile of the nodes
    )
    scratch = tmp_path / "scratch" / "mine"
    scratch.mkdir(parents=True)
    study.results.symlink_to(scratch)
    study.variables = HOSTILE

    driver = study.start()
    wait_until(lambda: study.has_started(CELL), "the run to train", 240)
    assert "not passed on to SLURM's commands: SACCT_FORMAT, SBATCH_WAIT," in study.output
    assert " minutes left" in study.logs()
    first = study.holders(CELL)[0]["job"]
    driver.kill()
    driver.wait()

    # The next driver makes it save and continues; after its kill its job is found by the real path.
    again = study.start()
    wait_until(lambda: "1 jobs of an earlier driver" in study.output, "the orphan")
    wait_until(lambda: "SIGTERM: saving" in study.logs(), "it to save")
    others = lambda: [lease for lease in study.holders(CELL) if lease["job"] != first]  # noqa: E731
    wait_until(others, "the run to continue", 180)
    again.kill()
    again.wait()
    assert "1 jobs of study tiny" in study.skd("cancel", "tiny", "--results", str(scratch))
    assert not study.holders(CELL)
    assert not cluster.run("squeue", "--noheader").strip()
    assert "0 jobs" in study.skd("cancel", "tiny")
