"""A study that a test drives on SLURM as a user would."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from skd.study.expansion import Expansion
from skd.study.expansion_files import load_expansion
from tests.builders.paths import ROOT

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
POLL_SECONDS = 0.5


@dataclass
class Study:
    """A study in a separate folder, driven by the repository's slurm profile."""

    folder: Path
    drivers: list[subprocess.Popen] = field(default_factory=list)
    shared: Path | None = None  # teachers of another store
    variables: dict[str, str] = field(default_factory=dict)  # of the user's shell

    def write(self, sheet: dict[str, Any], **profile: Any) -> None:
        """Write the sheet and an edited profile with short intervals and waits."""
        (self.folder / "studies").mkdir(parents=True, exist_ok=True)
        (self.folder / "studies" / "tiny.yaml").write_text(yaml.safe_dump(sheet))
        settings = yaml.safe_load((PROFILE / "config.yaml").read_text())
        settings |= {
            "slurm-init-seconds-before-status-checks": 3,
            "latency-wait": 10,
            "configfile": str(self.folder / "profile" / "jobs.yaml"),
        }
        jobs = yaml.safe_load((PROFILE / "jobs.yaml").read_text())
        for key, value in profile.items():
            if key in (*jobs, "cells_per_job"):
                jobs[key] = value
            elif key == "train":
                settings["set-resources"]["train"] |= value
            else:
                settings[key.replace("_", "-")] = value
        (self.folder / "profile").mkdir(exist_ok=True)
        (self.folder / "profile" / "config.yaml").write_text(yaml.safe_dump(settings))
        (self.folder / "profile" / "jobs.yaml").write_text(yaml.safe_dump(jobs))

    @property
    def environment(self) -> dict[str, str]:
        shared = {"SKD_TEACHERS": str(self.shared)} if self.shared else {}
        return {
            **os.environ,
            **shared,
            **self.variables,
            "SKD_STUDIES": str(self.folder / "studies"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, profile: str | None = None, target: str = "all") -> subprocess.Popen:
        """Start a driver, which writes its output to `driver.log`."""
        command = ["snakemake", "--profile", profile or str(self.folder / "profile"), target]
        command += ["--directory", str(self.folder), "--config", "study=tiny"]
        with (self.folder / "driver.log").open("a") as log:
            driver = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
        self.drivers.append(driver)
        return driver

    def run(self, seconds: float = 300, **options: Any) -> int:
        """Drive the study to its end; return the driver's status."""
        return self.start(**options).wait(timeout=seconds)

    def skd(self, *arguments: str) -> str:
        """Run a command of `skd` in the study's folder and return all that it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "skd", *arguments],
            cwd=self.folder,
            env=self.environment | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    @property
    def output(self) -> str:
        """Return all output of the drivers."""
        return (self.folder / "driver.log").read_text()

    @property
    def expansion(self) -> Expansion:
        return load_expansion(str(self.folder / "studies" / "tiny.yaml"), self.results)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def page(self) -> str:
        return (self.results / "tiny" / "report" / "index.html").read_text()

    def logs(self) -> str:
        """Return the logs of all attempts of the jobs."""
        paths = (self.results / "tiny" / "logs").rglob("*.history.log")
        return "\n".join(path.read_text() for path in paths)

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the finished runs' and teachers' records."""
        paths = [*self.results.glob("runs/*/record.json")]
        return {path.parent.name: json.loads(path.read_text()) for path in paths}

    def holders(self, key: str) -> list[dict[str, Any]]:
        """Return the leases of a cell's runs."""
        cell = self.expansion.cell_by_key(key)
        leases = [
            path
            for run in cell.runs.values()
            for path in (self.results / "runs" / run).glob("lease-*.json")
        ]
        contents = []
        for path in leases:
            try:
                contents.append(json.loads(path.read_text()))
            except (OSError, ValueError):
                continue
        return contents

    def has_started(self, key: str) -> bool:
        """Return whether a run of a cell has a checkpoint."""
        cell = self.expansion.cell_by_key(key)
        folders = [self.results / "runs" / run for run in cell.runs.values()]
        return any(any(folder.glob("checkpoint.pt")) for folder in folders)


def wait_until(true: Callable[[], Any], awaited: str, seconds: float = 120) -> Any:
    """Wait until a function returns a true value, and return the value."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"waited in vain for {awaited}"
        time.sleep(POLL_SECONDS)
    return value


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Return what must repeat bit for bit."""
    times = ("seconds", "images_per_second")
    epochs = [{k: v for k, v in row.items() if k not in times} for row in record["epochs"]]
    return {"epochs": epochs, "files": record["files"]}
