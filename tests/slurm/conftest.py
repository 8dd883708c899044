"""A SLURM for the tests, and a study to run on it as a user would."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, obstacle
from tests.slurm.study import Study


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start a SLURM; ended with the test."""
    started = []

    def make(accounting: bool = False, **settings: Any) -> Cluster:
        if reason := obstacle(accounting):
            pytest.skip(f"no SLURM: {reason}")
        cluster = Cluster(tmp_path / "slurm")
        started.append(cluster)
        cluster.start(accounting=accounting, **settings)
        return cluster

    yield make
    for cluster in started:
        cluster.stop()


@pytest.fixture
def make_study(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Make a study; its drivers are ended with the test."""
    studies = []

    def make(name: str, sheet: dict[str, Any], **profile: Any) -> Study:
        study = Study(tmp_path / name)
        study.write(sheet, **profile)
        studies.append(study)
        return study

    yield make
    for study in studies:
        for driver in study.drivers:
            if driver.poll() is None:
                driver.send_signal(signal.SIGINT)
                driver.wait(timeout=60)
