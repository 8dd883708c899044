"""Study sheets: what a user asks, as written. Imports no torch.

Here a sheet's shape is checked: keys, types, references within it. The names of networks, methods
and settings are checked where they are known, in `skd.expand`.
"""

from __future__ import annotations

import os
import re
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
from skd.spec import DatasetSpec, Frozen, Recipe

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "workflow" / "studies"
RESERVED = ("runs", "teachers", "reference")


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
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{8,64}$")] | None = Field(
        None,
        description="of the file; its first 8 hex digits or more will do, as torchvision's file "
        "names give them. The teacher's identity is by the digits given here",
    )
    seen_validation: bool = Field(
        False,
        description="states that it was trained on the images of the validation split too; without "
        "that it teaches no study on the split. No part of its identity",
    )
    accept_poor: bool = Field(
        False,
        description="imports it even if its accuracy here is below twice the chance level. No part "
        "of its identity",
    )

    @field_validator("file", mode="before")
    @classmethod
    def _expand_variables(cls, file: Any) -> Any:
        return os.path.expandvars(file) if isinstance(file, str) else file

    @field_validator("sha256", mode="before")
    @classmethod
    def _check_text(cls, sha256: Any) -> Any:
        if isinstance(sha256, int | float):
            raise ValueError("YAML takes these digits for a number; write them in quotes")
        return sha256

    @field_validator("sha256")
    @classmethod
    def _lower(cls, sha256: str | None) -> str | None:
        return sha256 and sha256.lower()

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
    without: tuple[str, ...] = Field((), description="methods that this pair is not taught by")


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9+_.])*", name):
        raise ValueError(
            f"'{name}': names are made of letters, digits and, not at the start, + _ . and single -"
        )
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


class Method(Frozen):
    """A method as a sheet writes it: terms of its own, or another method's with changes."""

    name: Name
    like: str | None = None
    terms: tuple[dict[str, Any], ...] | None = Field(None, min_length=1)
    simplifier: dict[str, Any] | None = None
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(
        default_factory=dict,
        description="what this method trains otherwise, on top of the study's and the student's "
        "recipe; it is the entry's own: what is 'like' another method does not inherit it",
    )


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
        return list(range(seeds)) if type(seeds) is int else seeds

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for pair in self.pairs:
            if pair.teacher not in self.teachers:
                raise ValueError(
                    f"pairs: unknown teacher '{pair.teacher}'{suggest(pair.teacher, self.teachers)}"
                )
            methods = [method.name for method in self.methods]
            for name in pair.without:
                if name not in methods:
                    raise ValueError(
                        f"pairs: without: unknown method '{name}'{suggest(name, methods)}"
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


def study_folders() -> list[Path]:
    """Return where sheets are looked for: ``$SKD_STUDIES``, then the shipped ones."""
    own = os.environ.get("SKD_STUDIES")
    return [Path(own), STUDIES] if own else [STUDIES]


def study_names() -> list[str]:
    """Return the names of all sheets that can be found."""
    return sorted({path.stem for folder in study_folders() for path in folder.glob("*.yaml")})


def find_sheet(name: str) -> Path:
    """Return the path of a sheet, given its name or its path. Its results have its name.

    Raises:
        StudyError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return _usable(Path(name))
        raise StudyError(f"no such study sheet: {name}")
    for folder in study_folders():
        if (path := folder / f"{name}.yaml").is_file():
            return _usable(path)
    raise StudyError(f"unknown study '{name}'{suggest(name, study_names())}")


def _usable(path: Path) -> Path:
    if path.stem in RESERVED:
        raise StudyError(f"no study can be named {path.stem}: results/{path.stem} is the store's")
    try:
        _plain_name(path.stem)
    except ValueError as error:
        raise StudyError(f"the study's name, {error}") from error
    return path


def read_sheet(path: Path) -> Sheet:
    """Read and validate a sheet, as far as that needs no torch.

    Raises:
        StudyError: not YAML, a key twice, an unknown key, a missing or ill-typed value.
    """
    data: dict[str, Any] = {}
    for source in reversed(sheet_files(path)):
        data |= _load(source)
    data.pop("extends", None)
    try:
        return Sheet.model_validate(data)
    except ValidationError as error:
        raise StudyError(explain(path.name, error)) from error


def sheet_files(path: Path) -> list[Path]:
    """Return a sheet's file, and those it extends: what each says replaces what the next one says.

    Raises:
        StudyError: a file cannot be read or found, or one extends itself.
    """
    files = [path]
    while True:
        base = _load(files[-1]).get("extends")
        if base is None:
            return files
        if not isinstance(base, str):
            raise StudyError(f"{files[-1].name}: extends: a study's name, got {base!r}")
        folders = [files[-1].parent, *study_folders()]
        found = [own for folder in folders if (own := folder / f"{base}.yaml").is_file()]
        if not found:
            raise StudyError(
                f"{files[-1].name}: extends: unknown study '{base}'{suggest(base, study_names())}"
            )
        # One's own sheet may extend the shipped one of its name.
        new = [own for own in found if own.resolve() not in [file.resolve() for file in files]]
        if not new:
            raise StudyError(f"{path.name}: extends itself, by way of {found[0].name}")
        files.append(new[0])


def sheet_text(path: Path) -> str:
    """Return a sheet as written, followed by those it extends."""
    first, *bases = sheet_files(path)
    parts = [f"\n# {base.name}, which this extends:\n{base.read_text()}" for base in bases]
    return "".join([first.read_text(), *parts])


def _load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path.name}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise StudyError(f"{path.name}: a sheet is a mapping of keys, such as 'title: …'")
    return data


def explain(where: str, error: ValidationError) -> str:
    """Return a validation error as lines of place and message, without the library's own words."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
        lines.append(f"{where}: {place + ': ' if place else ''}{message}{got}")
    return "\n".join(lines)


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
