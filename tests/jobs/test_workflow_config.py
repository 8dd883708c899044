"""The workflow's configuration: every key has a type, and values are read as written."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from skd.jobs.workflow_config import ConfigurationError, WorkflowConfig
from skd.planning.batches import JobShape
from skd.planning.parallel_config import ParallelConfig
from skd.planning.views_choice import ViewsConfig
from tests.builders.paths import ROOT

JOBS = ROOT / "workflow" / "profiles" / "slurm" / "jobs.yaml"


def read(*arguments: str, **config: Any) -> WorkflowConfig:
    return WorkflowConfig.read(config, arguments=arguments)


def test_the_shipped_file_is_valid_and_names_every_key() -> None:
    text = JOBS.read_text()
    keys = WorkflowConfig.read(yaml.safe_load(text), [JOBS]).model_dump().keys()
    for key in keys - {"study", "pathvars"}:  # the command's, and Snakemake's own
        assert f"\n{key}: " in text or f"\n# {key}: " in text, key


def test_the_parts_are_those_of_the_configuration() -> None:
    config = read(job_minutes=20, teacher_views="never", accumulate=2)
    assert config.job_shape == JobShape(job_minutes=20)
    assert config.views_config == ViewsConfig(teacher_views="never")
    assert config.parallel_config == ParallelConfig(accumulate=2)
    assert read().study == "cifar100"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"Study": "tiny"}, r"unknown key 'Study' \(did you mean 'study'\?\); allowed: "),
        ({"seeds": 5}, "unknown key 'seeds'; allowed: "),
        ({"longest_minutes": "1h"}, "longest_minutes: .* whole number of minutes.*got '1h'"),
        ({"longest_minutes": True}, "longest_minutes: true is not allowed"),
        ({"longest_minutes": 0}, "longest_minutes: "),
        ({"longest_minutes": 10**6}, "longest_minutes: "),
        ({"processes_per_run": 2.0}, "processes_per_run: "),
        ({"job_minutes": "12:00:00"}, "job_minutes: .*got '12:00:00'"),
        ({"compile": True}, "compile: true is not allowed"),
        ({"compile": "on"}, "compile: Input should be 'auto', 'always' or 'never'"),
        ({"side_by_side": 0}, "side_by_side: .*must be auto or a whole number of at least 1"),
        ({"side_by_side": 1.5}, "side_by_side: "),
        ({"checkpoint_seconds": float("inf")}, "checkpoint_seconds: "),
        ({"study": ["a", "b"]}, r"study: .*one study's name.*got \['a', 'b'\]"),
        ({"study": None}, "study: .*one study's name"),
        ({"device_model": 100}, "device_model: .*such as a100"),
    ],
)
def test_unknown_keys_and_values_are_refused(config: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^config: {message}"):
        read(**config)


@pytest.mark.parametrize(
    ("text", "value"),
    [("12:00:00", 43200), ("010", 8), ("1_0", 10), ("0x10", 16), ("1:30.5", 90.5)],
)
def test_a_number_that_is_read_as_another_is_refused(
    tmp_path: Path, text: str, value: float
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(f"job_minutes: {text}\n")
    assert yaml.safe_load(file.read_text()) == {"job_minutes": value}
    with pytest.raises(ConfigurationError, match=f"job_minutes: '{text}' is read as {value}"):
        WorkflowConfig.read({"job_minutes": value}, [file])
    # The command line replaces it.
    assert WorkflowConfig.read({"job_minutes": 30}, [file], ["job_minutes=30"]).job_minutes == 30
    with pytest.raises(ConfigurationError, match="is read as"):
        read(f"job_minutes={text}", job_minutes=value)


@pytest.mark.parametrize("text", ["60", "0.5", ".5", "1e2", "0"])
def test_plain_numbers_are_taken(text: str) -> None:
    assert read(f"job_minutes={text}", job_minutes=float(text)).job_minutes == float(text)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("accumulate: 1\naccumulate: 2\n")
    with pytest.raises(ConfigurationError, match="written twice: accumulate"):
        WorkflowConfig.read({"accumulate": 2}, [file])


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("2024_05_01", 20240501), ("007", 7), ("1e3", 1000.0), ("true", True), ("'12'", 12)],
)
def test_a_study_keeps_the_name_that_was_written(tmp_path: Path, text: str, parsed: object) -> None:
    assert read(f"study={text}", study=parsed).study == text.strip("'")
    file = tmp_path / "jobs.yaml"
    file.write_text(f"study: {text}\n")
    assert WorkflowConfig.read({"study": parsed}, [file]).study == text.strip("'")


def test_a_study_may_be_a_sheets_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = read(study="mine/tiny.yaml")
    assert config.study_name == "tiny"
    assert config.sheet("tiny") == str(tmp_path / "mine" / "tiny.yaml")
    assert config.sheet("demo") == "demo"
    assert read(study="tiny").sheet("tiny") == "tiny"
