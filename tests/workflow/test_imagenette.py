"""The ImageNet study's networks and methods on real photos, through the graph, in two processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from skd.study.sheet_files import STUDIES_FOLDER
from tests.builders import photos
from tests.builders.paths import ROOT

pytestmark = pytest.mark.slow

IMAGENET = yaml.safe_load((STUDIES_FOLDER / "imagenet.yaml").read_text())
METHODS = [m if isinstance(m, str) else m["name"] for m in IMAGENET["methods"]]
SAME = [name for name in METHODS if name not in ("student", "reviewkd")]
SHEET = {
    "extends": "imagenet",
    "title": "a few steps on photos",
    "dataset": {
        "name": "imagefolder",
        "train_limit": 32,
        "folder": {
            "path": "imagenette_mini",
            "classes": 10,
            "train_images": 1000,
            "test_images": 300,
            "size": 64,  # the least that networks with the stem of ImageNet take
        },
    },
    "recipe": {
        **IMAGENET["recipe"],
        **{"epochs": 1, "milestones": [], "batch_size": 16, "learning_rate": 1e-4, "bn_batch": 4},
    },
    "teachers": {name: {"train": {"seed": 7}} for name in IMAGENET["teachers"]},
    "settings": {
        **IMAGENET["settings"],
        "crd": {"negatives": 20},
        "simplifier": {"temperature": 1, "group": 4},
    },
    # All methods on one pair; on the other only methods that pair maps.
    "pairs": [
        {**pair, "without": [] if pair["student"] == "resnet18" else SAME}
        for pair in IMAGENET["pairs"]
    ],
    "methods": METHODS,
    "seeds": [0],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the study and its photos."""
    folder = tmp_path_factory.mktemp("imagenette")
    root = photos.real_photos(folder).parent
    (folder / "data").symlink_to(root)
    (folder / "photos.yaml").write_text(yaml.safe_dump(SHEET))
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SKD_STUDIES": str(folder),
        "SKD_DATA": str(folder / "data"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }


def started(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Start a command whose output can be read."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def second_process() -> psutil.Process | None:
    """Return the second process of a run of this study that is training."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RANK") == "1" and "photos" in process.cmdline():
                return process
    return None


@pytest.fixture(scope="module")
def killed(folder: Path) -> str:
    """Return the output of a job of which one of two processes was killed."""
    command = ["job", "train", "photos", "resnet18", "student", "--processes", "2"]
    results = ["--results", str(folder / "results"), "--checkpoint-seconds", "0"]
    job = started(folder, sys.executable, "-m", "skd", *command, *results)
    end = time.monotonic() + 120
    while not list(folder.glob("results/runs/*/execution.json")):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    second_process().kill()
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0, output
    return output


@pytest.fixture(scope="module")
def finished(folder: Path, killed: str) -> Path:
    """Return the study after its workflow: two processes per run, a pair's cells in one job."""
    command = ["snakemake", "--profile", "local", "--directory", str(folder), "all", "--config"]
    driver = started(folder, *command, "study=photos", "processes_per_run=2", "cells_per_job=10")
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    return folder


def test_a_job_of_which_a_process_is_killed_ends_with_its_reason(killed: str) -> None:
    assert "another process of this run has ended" in killed


def test_every_method_through_the_graph(finished: Path) -> None:
    paths = (finished / "results" / "runs").glob("*/record.json")
    records = [json.loads(path.read_text()) for path in paths]
    assert len(records) == len(METHODS) + 2
    assert {record["execution"]["processes"] for record in records} == {2}
    assert {record["spec"]["network"] for record in records} == {"resnet18", "MobileNetV1"}
    assert all(record["num_classes"] == 10 for record in records)
    page = (finished / "results" / "photos" / "report" / "index.html").read_text()
    assert all(method in page for method in METHODS)


def test_one_process_trains_what_two_do(finished: Path, tmp_path: Path) -> None:
    """Equal up to rounding, on the study's networks, photos and groups of BatchNorm."""
    command = [sys.executable, "-m", "skd", "train", "photos", "resnet34--resnet18", "skd+crd"]
    command += ["--results", str(tmp_path), "--threads", "1", "--device", "cpu"]
    own = {"SKD_TEACHERS": str(finished / "results" / "teachers")}
    done = subprocess.run(
        command, env=environment(finished) | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/record.json")
    one = json.loads(path.read_text())
    two = json.loads((finished / "results" / "runs" / path.parent.name / "record.json").read_text())
    assert (one["execution"]["processes"], two["execution"]["processes"]) == (1, 2)
    (a,), (b,) = one["epochs"], two["epochs"]
    assert a["train_losses"] == pytest.approx(b["train_losses"], rel=1e-3)
    assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-2)
