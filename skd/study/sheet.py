"""Study sheets as users write them. Imports no torch.

The models check a sheet's keys, types and references within it. `skd.study.sheet_files` finds and
reads its files. `skd.expansion` checks the names of networks, methods and settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeInt,
    ValidationError,
    field_validator,
    model_validator,
)

from skd.common.errors import suggest
from skd.common.files import expand_home
from skd.common.frozen import FrozenModel
from skd.common.names import Name, validate_name, validate_path
from skd.common.printable import printable
from skd.common.validation_messages import error_location, validation_message
from skd.common.wrapped_networks import LIBRARIES, options_problem, wrapped_name
from skd.study.figure_choice import FigureChoice
from skd.study.limits import expand_seeds
from skd.study.presentation import TableOptions, display_problem
from skd.study.sheet_files import StudyError, read_sheet_file, sheet_files
from skd.study.spec import DatasetSpec, Recipe
from skd.study.sweeps import SweepPoint, sweep_points


class TrainSource(FrozenModel):
    """A teacher to be trained, by the study's recipe with changes."""

    seed: NonNegativeInt
    method: str = Field("student", description="any method that needs no teacher, or a sum of them")
    partner: str | None = Field(
        None,
        description="network of the student that the teacher is to suit; for methods that train "
        "with one, such as sftn",
    )
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of the method's terms, by term"
    )
    recipe: dict[str, Any] = Field(default_factory=dict)


class ImportSource(FrozenModel):
    """A teacher whose checkpoint is a file or a download."""

    file: Path | None = None
    url: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{8,64}$")] | None = Field(
        None,
        description="of the file: at least its first 8 hex digits, as in torchvision's file names. "
        "The digits as written decide the teacher's identity",
    )
    seen_validation: bool = Field(
        False,
        description="declares that it was also trained on the images of the validation split; "
        "required in a study on that split. Not part of its identity",
    )
    accept_poor: bool = Field(
        False,
        description="imports it even if its accuracy is below twice the chance level. Not part of "
        "its identity",
    )

    @field_validator("file", mode="before")
    @classmethod
    def _expand(cls, file: Any) -> Any:
        return expand_home(os.path.expandvars(file)) if isinstance(file, str) else file

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: Path | None) -> Path | None:
        return None if file is None else validate_path(file)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        return None if url is None else _usable_url(url)

    @field_validator("sha256", mode="before")
    @classmethod
    def _check_text(cls, sha256: Any) -> Any:
        if isinstance(sha256, int | float):
            raise ValueError("YAML reads these digits as a number; write them in quotes")
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
            raise ValueError("a url needs the sha256 of its file")
        return self


def _usable_url(url: str) -> str:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"'{url}' is not a URL: percent-encode spaces and non-ASCII characters")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"'{url}' is not a URL: {error}") from error
    if parts.scheme not in ("https", "http", "file", "ftp"):
        raise ValueError(f"'{url}' is not a URL: start it with https://")
    if parts.scheme != "file" and not parts.hostname:
        raise ValueError(f"'{url}' is not a URL: it has no host")
    return url


class SheetNetwork(FrozenModel):
    """A network of another library, which the sheet names."""

    wrap: str = Field(description="torchvision/NAME or timm/NAME")
    stages: tuple[str, ...] = Field(
        min_length=2,
        description="modules whose outputs are the stages, in their order; the stem's first",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the library's builder"
    )

    @field_validator("wrap")
    @classmethod
    def _check_library(cls, wrap: str) -> str:
        library, separator, model = wrap.partition("/")
        if library not in LIBRARIES or not separator or not model:
            allowed = " or ".join(f"{name}/NAME" for name in LIBRARIES)
            raise ValueError(f"'{wrap}' is no network of another library; write {allowed}")
        return wrap

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        if problem := options_problem(options):
            raise ValueError(problem)
        return options

    @property
    def network(self) -> str:
        """The network's name in specs, which holds this description."""
        return wrapped_name(self.wrap, self.stages, self.options)


class SheetTeacher(FrozenModel):
    """One entry of a sheet's teachers. Without ``network``, its name is the network."""

    network: str | None = None
    train: TrainSource | None = None
    import_: ImportSource | None = Field(None, alias="import")

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.train is None) == (self.import_ is None):
            raise ValueError("give either train (with its seed) or import (file or url)")
        return self


class SheetPair(FrozenModel):
    """A teacher's name and a student's network, with the settings of this pair."""

    teacher: str
    student: Name
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    without: tuple[str, ...] = Field(
        (), description="methods that this pair leaves out; the name of a sweep is all of it"
    )

    def leaves_out(self, method: SheetMethod) -> bool:
        """Return whether this pair does not have a method."""
        return not method.names.isdisjoint(self.without)


class MethodTeacher(FrozenModel):
    """How a method's teachers are trained: as each pair's teacher, with these changes."""

    method: str = Field(description="any method that needs no teacher, or a sum of them")
    seed: NonNegativeInt | None = Field(
        None, description="none: the seed of the pair's teacher, which must be trained here"
    )
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="settings of the method's terms, by term"
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="changes to the recipe of the pair's teacher"
    )


class SheetMethod(FrozenModel):
    """A method as a sheet writes it: its own terms, or another method with changes."""

    name: Name
    like: str | None = None
    terms: tuple[dict[str, Any], ...] | None = Field(None, min_length=1)
    simplifier: dict[str, Any] | None = Field(
        None, description="settings of SKD's simplifier; the same as transformations: {simplifier}"
    )
    transformations: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="settings of the transformations of the teacher's logits, by name; not needed "
        "for the default settings",
    )
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(
        default_factory=dict,
        description="changes of this method to the study's and the student's recipe; a method that "
        "is 'like' this one does not inherit them",
    )
    teacher: MethodTeacher | None = Field(
        None,
        description="trains a further teacher for this method and each pair, by another method, "
        "with the pair's student as partner if that method uses one; none: the pair's teacher",
    )
    sweep: dict[str, tuple[Any, ...]] | None = Field(
        None,
        description="values by PART.SETTING or recipe.SETTING; each combination is a method, named "
        "by its values",
    )

    @property
    def names(self) -> frozenset[str]:
        """The names by which a pair can leave the method out."""
        return frozenset({self.name})

    def expand(self) -> tuple[SheetMethod, ...]:
        """Return the methods of the sweep, or the method if it has none.

        Raises:
            ValueError: the sweep is invalid.
        """
        if self.sweep is None:
            return (self,)
        try:
            return tuple(self._at(point) for point in sweep_points(self.sweep))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def _at(self, point: SweepPoint) -> SheetMethod:
        """Return the method with the settings of a point of the sweep."""
        written = {"recipe": self.recipe, **self.settings, **self.transformations}
        written["simplifier"] = {**written.get("simplifier", {}), **(self.simplifier or {})}
        for term in self.terms or ():
            name = str(term.get("term"))
            written[name] = {**written.get(name, {}), **term}
        for part, swept in {"recipe": point.recipe, **point.settings}.items():
            if twice := [name for name in swept if name in written.get(part, {})]:
                raise ValueError(
                    f"sweep: {part}.{twice[0]}: the method also sets it; write it only once"
                )
        parts = dict.fromkeys([*self.settings, *point.settings])
        return SweptMethod(
            name=validate_name(f"{self.name}-{point.suffix}"),
            like=self.like or (self.name if self.terms is None else None),
            terms=self.terms,
            simplifier=self.simplifier,
            transformations=self.transformations,
            settings={
                part: {**self.settings.get(part, {}), **point.settings.get(part, {})}
                for part in parts
            },
            recipe={**self.recipe, **point.recipe},
            teacher=self.teacher,
            swept_from=self.name,
        )


class SweptMethod(SheetMethod):
    """A method that a sweep has made."""

    swept_from: str = Field(description="name of the sweep in the sheet")

    @property
    def names(self) -> frozenset[str]:
        """The names by which a pair can leave the method out: its own and the sweep's."""
        return frozenset({self.name, self.swept_from})


class Sheet(FrozenModel):
    """A study sheet. Its methods are those after the expansion of sweeps."""

    title: str
    description: str = ""
    dataset: DatasetSpec
    recipe: Recipe = Recipe()
    student_recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    networks: dict[Name, SheetNetwork] = Field(
        default_factory=dict, description="networks of other libraries, by names of the sheet"
    )
    teachers: dict[Name, SheetTeacher]
    pairs: tuple[SheetPair, ...] = Field(min_length=1)
    methods: tuple[SheetMethod, ...] = Field(min_length=1)
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    figures: FigureChoice = FigureChoice()
    display: dict[str, str] = Field(
        default_factory=dict,
        description="names that the report shows for methods, teachers and networks; methods "
        "listed here appear in this order. Not part of an identity",
    )
    tables: TableOptions = Field(
        TableOptions(), description="layout of the report's tables. Not part of an identity"
    )

    @field_validator("title", "description")
    @classmethod
    def _check_printable(cls, text: str) -> str:
        if printable(text) != text:
            raise ValueError(f"{text!r} has control characters; allowed: text and line breaks")
        return text

    @field_validator("methods", mode="before")
    @classmethod
    def _names_are_methods(cls, methods: Any) -> Any:
        if not isinstance(methods, list):
            return methods
        return [{"name": m} if isinstance(m, str) else m for m in methods]

    @field_validator("methods")
    @classmethod
    def _expand_sweeps(cls, methods: tuple[SheetMethod, ...]) -> tuple[SheetMethod, ...]:
        names = [method.name for method in methods if method.sweep is not None]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"sweeps named twice: {', '.join(sorted(duplicates))}")
        return tuple(expanded for method in methods for expanded in method.expand())

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_is_seeds(cls, seeds: Any) -> Any:
        return expand_seeds(seeds)

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for pair in self.pairs:
            if pair.teacher not in self.teachers:
                raise ValueError(
                    f"pairs: unknown teacher '{pair.teacher}'{suggest(pair.teacher, self.teachers)}"
                )
            methods = list(dict.fromkeys(n for each in self.methods for n in sorted(each.names)))
            for name in pair.without:
                if name not in methods:
                    raise ValueError(
                        f"pairs: without: unknown method '{name}'{suggest(name, methods)}"
                    )
        students = list(dict.fromkeys(pair.student for pair in self.pairs))
        for student in self.student_recipes:
            if student not in students:
                raise ValueError(
                    f"student_recipes: unknown student '{student}'{suggest(student, students)}"
                )
        sweeps = {method.swept_from for method in self.methods if isinstance(method, SweptMethod)}
        for key, names in (
            ("methods", [*sweeps, *(method.name for method in self.methods)]),
            ("seeds", list(self.seeds)),
            ("pairs", [(pair.teacher, pair.student) for pair in self.pairs]),
        ):
            if duplicates := {str(name) for name in names if names.count(name) > 1}:
                raise ValueError(f"{key}: named twice: {', '.join(sorted(duplicates))}")
        return self

    @property
    def shown_figures(self) -> FigureChoice:
        """The choice of figures with the default methods filled in, in the order of the sheet."""
        return FigureChoice(methods=self.figures.shown([method.name for method in self.methods]))

    @model_validator(mode="after")
    def _check_figures(self) -> Self:
        if problem := self.figures.problem([method.name for method in self.methods]):
            raise ValueError(f"figures: {problem}")
        return self

    @model_validator(mode="after")
    def _check_display(self) -> Self:
        networks = [entry.network or name for name, entry in self.teachers.items()]
        networks += [*self.teachers, *(pair.student for pair in self.pairs), *self.networks]
        methods = [method.name for method in self.methods]
        if problem := display_problem(self.display, methods, networks):
            raise ValueError(f"display: {problem}")
        return self


def network_in_specs(sheet: Sheet, name: str) -> str:
    """Return the name that specs have for a network of a sheet."""
    return sheet.networks[name].network if name in sheet.networks else name


def read_sheet(path: Path) -> Sheet:
    """Read a sheet and validate it, except for what needs torch.

    Raises:
        StudyError: the file cannot be read (`skd.common.yaml_files`), or has an unknown key, or a
            value is missing or has a wrong type.
    """
    data: dict[str, Any] = {}
    for source in reversed(sheet_files(path)):
        data |= read_sheet_file(source)
    data.pop("extends", None)
    try:
        return Sheet.model_validate(data)
    except ValidationError as error:
        raise StudyError(format_validation_error(path.name, error)) from error


def format_validation_error(where: str, error: ValidationError) -> str:
    """Return a validation error as lines of place and message, in the terms of sheets."""
    lines, errors = [], error.errors()
    within = {item["loc"][:-1] for item in errors if item["loc"]}
    for item in errors:
        if item["type"] == "too_short" and item["loc"] in within:
            continue  # pydantic does not count items that are invalid themselves
        location = error_location(item)
        lines.append(f"{where}: {location + ': ' if location else ''}{validation_message(item)}")
    return "\n".join(lines)
