"""Study sheets: what a user asks, and what it resolves to. Imports no torch.

A sheet is expanded to specs by `skd expand`, which knows networks and terms and so needs torch.
The result, ``results/<study>/specs.json``, is what workflow and report read.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    ValidationError,
    field_validator,
    model_validator,
)

from skd.errors import SkdError, suggest
from skd.spec import (
    DatasetSpec,
    Frozen,
    Recipe,
    RunSpec,
    TeacherSpec,
    canonical,
    digest,
)

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "workflow" / "studies"


class StudyError(SkdError, ValueError):
    """A sheet cannot be read or resolved. The message names the place and what is allowed."""


class Train(Frozen):
    """A teacher to be trained here, by the study's recipe or one of its own."""

    seed: NonNegativeInt
    recipe: dict[str, Any] = Field(default_factory=dict)


class Import(Frozen):
    """A teacher's checkpoint from elsewhere."""

    file: Path | None = None
    url: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @field_validator("file", mode="before")
    @classmethod
    def _expand_variables(cls, file: Any) -> Any:
        return os.path.expandvars(file) if isinstance(file, str) else file

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("give either file or url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of what it serves")
        return self


class Teacher(Frozen):
    """One entry of a sheet's teachers; the network is the entry's name unless given."""

    network: str | None = None
    train: Train | None = None
    import_: Import | None = Field(None, alias="import")

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.train is None) == (self.import_ is None):
            raise ValueError("give either train (with its seed) or import (file or url)")
        return self


class Pair(Frozen):
    """A teacher's name and a student's network, with what only this pair sets."""

    teacher: str
    student: str
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)


def _plain_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "+-_." for c in name) or "--" in name:
        raise ValueError(f"'{name}': names are made of letters, digits, and single + - _ .")
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


class Method(Frozen):
    """A method as a sheet writes it: terms of its own, or another method's with changes."""

    name: Name
    like: str | None = None
    terms: tuple[dict[str, Any], ...] | None = Field(None, min_length=1)
    simplifier: dict[str, Any] | None = None
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Sheet(Frozen):
    """A study sheet."""

    title: str
    description: str = ""
    dataset: DatasetSpec
    recipe: Recipe = Recipe()
    student_recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    teachers: dict[Name, Teacher]
    pairs: tuple[Pair, ...] = Field(min_length=1)
    methods: tuple[Method, ...] = Field(min_length=1)
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)

    @field_validator("methods", mode="before")
    @classmethod
    def _names_are_methods(cls, methods: Any) -> Any:
        if not isinstance(methods, list):
            return methods
        return [{"name": m} if isinstance(m, str) else m for m in methods]

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_is_seeds(cls, seeds: Any) -> Any:
        return list(range(seeds)) if isinstance(seeds, int) else seeds

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for pair in self.pairs:
            if pair.teacher not in self.teachers:
                raise ValueError(
                    f"pairs: unknown teacher '{pair.teacher}'{suggest(pair.teacher, self.teachers)}"
                )
        students = list(dict.fromkeys(pair.student for pair in self.pairs))
        for student in self.student_recipes:
            if student not in students:
                raise ValueError(
                    f"student_recipes: '{student}' is no student{suggest(student, students)}"
                )
        for what, names in (
            ("methods", [method.name for method in self.methods]),
            ("seeds", list(self.seeds)),
            ("pairs", [(pair.teacher, pair.student) for pair in self.pairs]),
        ):
            if twice := {str(name) for name in names if names.count(name) > 1}:
                raise ValueError(f"{what}: named twice: {', '.join(sorted(twice))}")
        return self


class TeacherNode(Frozen):
    """A teacher of an expanded study."""

    name: str
    id: str
    spec: TeacherSpec
    origin: str
    source: Import | None = None


class Cell(Frozen):
    """(pair, method) with all its seeds. A method that needs no teacher has one cell a student."""

    pair: str
    method: str
    teacher: str | None
    student: str
    spec: RunSpec = Field(description="of the first seed")
    runs: dict[NonNegativeInt, str] = Field(description="seed to identity")

    @property
    def digest(self) -> str:
        """Hash of the cell's runs: another in a file's name means other runs."""
        return digest(sorted(self.runs.values()))[:8]

    @property
    def key(self) -> str:
        """How a person names the cell."""
        return f"{self.pair}/{self.method}"

    @property
    def path(self) -> str:
        """The cell file's place within ``results/<study>/cells``, without its ending."""
        return f"{self.key}-{self.digest}"

    def run(self, seed: int) -> RunSpec:
        """Return the spec of one seed's run."""
        return self.spec.model_copy(update={"seed": seed})


class Expansion(Frozen):
    """A study, resolved: what the workflow runs and the report expects."""

    study: str
    sources: str = Field(description="digest of all that the expansion depends on")
    title: str
    description: str
    sheet: str = Field(description="the sheet as written")
    dataset: DatasetSpec
    recipe: Recipe
    methods: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = Field(description="(teacher's name, student)")
    seeds: tuple[int, ...]
    teachers: tuple[TeacherNode, ...]
    cells: tuple[Cell, ...]

    @cached_property
    def _cells_by_key(self) -> dict[str, Cell]:
        return {cell.key: cell for cell in self.cells}

    def cell(self, pair: str, method: str) -> Cell:
        """Return one cell.

        Raises:
            StudyError: the study has no such cell.
        """
        try:
            return self._cells_by_key[f"{pair}/{method}"]
        except KeyError:
            key = f"{pair}/{method}"
            raise StudyError(
                f"study {self.study} has no cell '{key}'{suggest(key, self._cells_by_key)}"
            ) from None

    def cell_of(self, teacher: str, student: str, method: str) -> Cell:
        """Return the cell that fills one place of a pair's row: shared where it has no teacher."""
        shared = self._cells_by_key.get(f"{student}/{method}")
        return shared or self.cell(f"{teacher}--{student}", method)

    def teacher(self, name: str) -> TeacherNode:
        """Return one teacher.

        Raises:
            StudyError: the study has no such teacher.
        """
        teachers = {node.name: node for node in self.teachers}
        try:
            return teachers[name]
        except KeyError:
            raise StudyError(
                f"study {self.study} has no teacher '{name}'{suggest(name, teachers)}"
            ) from None


def study_folders() -> list[Path]:
    """Return where sheets are looked for: ``$SKD_STUDIES``, then the shipped ones."""
    own = os.environ.get("SKD_STUDIES")
    return [Path(own), STUDIES] if own else [STUDIES]


def study_names() -> list[str]:
    """Return the names of all sheets that can be found."""
    return sorted({path.stem for folder in study_folders() for path in folder.glob("*.yaml")})


def find_sheet(name: str) -> Path:
    """Return the path of a sheet, given its name or its path.

    Raises:
        StudyError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise StudyError(f"no such study sheet: {name}")
    for folder in study_folders():
        if (path := folder / f"{name}.yaml").is_file():
            return path
    raise StudyError(f"unknown study '{name}'{suggest(name, study_names())}")


def read_sheet(path: Path) -> Sheet:
    """Read and validate a sheet, as far as that needs no torch.

    Raises:
        StudyError: not YAML, a key twice, an unknown key, a missing or ill-typed value.
    """
    try:
        data = yaml.load(path.read_text(), Loader=_UniqueKeyLoader)
        return Sheet.model_validate(data)
    except yaml.YAMLError as error:
        raise StudyError(f"{path.name}: not valid YAML: {error}") from error
    except ValidationError as error:
        raise StudyError(explain(path.name, error)) from error


def explain(where: str, error: ValidationError) -> str:
    """Return a validation error as lines of place and message, without the library's own words."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
        lines.append(f"{where}: {place + ': ' if place else ''}{message}{got}")
    return "\n".join(lines)


def expansion_path(results: Path, study: str) -> Path:
    """Return where a study's expansion is kept."""
    return results / study / "specs.json"


def load_expansion(name: str, results: Path) -> Expansion:
    """Return a study's expansion, made anew in a process of its own where it is out of date.

    Raises:
        StudyError: the sheet is wrong; the message is the one `skd expand` printed.
    """
    sheet = find_sheet(name)
    path = expansion_path(results, sheet.stem)
    if (fresh := _read_fresh(path, sheet)) is not None:
        return fresh
    command = [sys.executable, "-m", "skd", "expand", name, "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StudyError(done.stderr.strip() or f"{' '.join(command)} failed")
    expansion = _read_fresh(path, sheet)
    if expansion is None:
        raise StudyError(f"{sheet} or the code was edited while it was read; start again")
    return expansion


def write_expansion(expansion: Expansion, results: Path) -> Path:
    """Write a study's expansion where workflow and report look for it."""
    from skd.files import write_json

    path = expansion_path(results, expansion.study)
    data = expansion.model_dump(mode="json", by_alias=True)
    for node, written in zip(expansion.teachers, data["teachers"], strict=True):
        written["spec"] = canonical(node.spec)
    for cell, written in zip(expansion.cells, data["cells"], strict=True):
        written["spec"] = canonical(cell.spec)
    write_json(path, data)
    return path


def sources_digest(sheet: Path) -> str:
    """Hash all that an expansion depends on: the sheet, the code, and the checkpoints it names."""
    state = hashlib.sha256(sheet.read_bytes())
    for package in ("skd", "baselines"):
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                state.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for teacher in read_sheet(sheet).teachers.values():
        file = teacher.import_.file if teacher.import_ else None
        if file is not None and file.is_file():
            stat = file.stat()
            state.update(f"{file} {stat.st_size} {stat.st_mtime_ns}".encode())
    return state.hexdigest()


def _read_fresh(path: Path, sheet: Path) -> Expansion | None:
    try:
        data = json.loads(path.read_text())
        if data["sources"] != sources_digest(sheet):
            return None
        return Expansion.restore(data)
    except (FileNotFoundError, ValueError, KeyError):
        return None


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is written twice", node.start_mark
                )
        return super().construct_mapping(node, deep)
