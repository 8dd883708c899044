"""The workflow's configuration: all keys with their types and defaults. Imports no torch.

Snakemake parses `--config` and the configuration files itself and accepts any key. Its YAML reads
12:00:00 as 43200 and 010 as 8, and converts a study's name such as 2024_05_01 to a number. So the
values are compared with the text that the user wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError
from pydantic import field_validator as validator

from skd.common.errors import SkdError
from skd.common.gpu_state import gpu_state
from skd.planning.batches import JobShape
from skd.planning.parallel_config import ParallelConfig
from skd.planning.side_by_side import parse_side_by_side
from skd.planning.views_choice import ViewsConfig
from skd.study.sheet_files import SHEET_SUFFIXES

_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*|(?=\.))(\.[0-9]*)?([eE][-+]?[0-9]+)?")
MAX_MINUTES = 366 * 24 * 60


class ConfigurationError(SkdError, ValueError):
    """The workflow's configuration is wrong. The message names the key and the allowed values."""


class WorkflowConfig(JobShape, ViewsConfig, ParallelConfig):
    """The keys of the workflow's configuration; workflow/profiles/slurm/jobs.yaml explains them."""

    model_config = ConfigDict(strict=True)

    study: str = Field(
        "cifar100", min_length=1, description="one study's name, or the path of its sheet"
    )
    side_by_side: str = Field("auto", description="a number of runs, or auto")
    checkpoint_seconds: NonNegativeFloat = 60.0
    longest_minutes: PositiveInt | None = Field(
        None, le=MAX_MINUTES, description="a whole number of minutes, such as 1440 for a day"
    )
    device_model: str = Field(
        default_factory=lambda: "a100" if gpu_state() else "cpu",
        description="a device's name, such as a100",
    )
    pathvars: dict[str, Any] = Field(default_factory=dict, description="Snakemake's own")

    @validator("side_by_side", mode="before")
    @classmethod
    def _check_count(cls, value: Any) -> Any:
        text = str(value) if type(value) is int else value
        if isinstance(text, str):
            try:
                parse_side_by_side(text)
            except SkdError as error:
                raise ValueError(str(error)) from error
        return text

    @classmethod
    def read(
        cls,
        config: Mapping[str, Any],
        files: Iterable[Path] = (),
        arguments: Iterable[str] = (),
    ) -> Self:
        """Return the checked configuration of Snakemake.

        Args:
            config: Snakemake's `config`.
            files: the configuration files.
            arguments: the KEY=VALUE arguments of `--config`, which take precedence.

        Raises:
            ConfigurationError: a key is unknown, a value has a wrong type, or YAML reads a number
                as another one than the user wrote.
        """
        texts = written_values(files, arguments)
        values = dict(config)
        if type(values.get("study")) in (int, float, bool):
            values["study"] = texts.get("study", str(values["study"]))
        for key, value in values.items():
            if type(value) in (int, float) and not _NUMBER.fullmatch(texts.get(key, "0")):
                raise ConfigurationError(
                    f"config: {key}: '{texts[key]}' is read as {value}; write a plain number"
                )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigurationError("\n".join(map(_explain, error.errors()))) from error

    @property
    def study_name(self) -> str:
        """The study's name, which is also the name of its folder in the results folder."""
        return Path(self.study).stem if self.study.endswith(SHEET_SUFFIXES) else self.study

    def sheet(self, name: str) -> str:
        """Return the argument of `skd` for a study: its sheet's path if configured, or its name."""
        is_path = self.study.endswith(SHEET_SUFFIXES) and name == self.study_name
        return str(Path(self.study).absolute()) if is_path else name

    @property
    def job_shape(self) -> JobShape:
        """The size of a job."""
        return JobShape(**self.model_dump(include={*JobShape.model_fields}))

    @property
    def views_config(self) -> ViewsConfig:
        """Which teachers' views are stored."""
        return ViewsConfig(**self.model_dump(include={*ViewsConfig.model_fields}))

    @property
    def parallel_config(self) -> ParallelConfig:
        """How each run is trained."""
        return ParallelConfig(**self.model_dump(include={*ParallelConfig.model_fields}))


def written_values(files: Iterable[Path], arguments: Iterable[str]) -> dict[str, str]:
    """Return the text of each plain value by its key; the last occurrence of a key counts.

    Raises:
        ConfigurationError: a file has a key twice; YAML would use the last one silently.
    """
    texts: dict[str, str] = {}
    for file in files:
        root = yaml.compose(Path(file).read_text(encoding="utf-8"))
        keys = [key.value for key, _ in root.value] if root else []
        if duplicates := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigurationError(f"{file}: written twice: {', '.join(duplicates)}")
        for key, value in root.value if root else ():
            texts.pop(key.value, None)
            if isinstance(value, yaml.ScalarNode):
                texts[key.value] = value.value
    for argument in arguments:
        key, _, text = argument.partition("=")
        texts[key] = text.strip("'\"")  # as Snakemake does
    return texts


def _explain(error: Mapping[str, Any]) -> str:
    """Return one line on the error of one key."""
    key = str(error["loc"][0]) if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"config: {key + ': ' if key else ''}{message}"
    field = WorkflowConfig.model_fields.get(key)
    hint = f" ({field.description})" if field and field.description else ""
    return f"config: {key}: {message}{hint}, got {error['input']!r}"
