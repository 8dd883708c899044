"""Expanded studies: every teacher, cell and run of a sheet, resolved. Imports no torch.

A sheet is expanded by `skd expand`, which knows networks and terms and so needs torch. The result,
``results/<study>/specs.json``, is what workflow and report read.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

from skd.code.closure import SourceFile, closure_digests
from skd.code.sources import source_files, subprocess_environment
from skd.common.errors import suggest
from skd.common.files import read_json, write_json
from skd.common.frozen import FrozenModel, canonical, digest
from skd.common.plugins import WARNING_PREFIX
from skd.study.code_roots import run_source_roots, views_source_roots
from skd.study.sheet import ImportSource, read_sheet
from skd.study.sheet_files import StudyError, find_sheet, sheet_files
from skd.study.spec import DatasetSpec, Recipe, RunSpec, TeacherSpec


class TeacherNode(FrozenModel):
    """A teacher of an expanded study."""

    name: str
    id: str
    spec: TeacherSpec
    origin: str
    source: ImportSource | None = None
    leaks: bool = Field(False, description="whether it was trained on the validation images, too")


class ImageInfo(FrozenModel):
    """How many images a run sees, and how large: the split and the training limit applied."""

    train_images: PositiveInt
    test_images: PositiveInt
    size: PositiveInt = Field(description="height and width in pixels")
    channels: PositiveInt
    classes: PositiveInt
    views: NonNegativeInt = Field(
        1, description="what augmentation can make of an image; 0: photos have endless views"
    )

    @property
    def photos(self) -> bool:
        """Whether the images are photos, decoded as they are needed."""
        return not self.views


class NetworkProfile(FrozenModel):
    """What a network is, for one image of the data set's size."""

    parameters: NonNegativeInt
    multiply_adds: NonNegativeInt = Field(description="of one forward pass on one image")
    activations: NonNegativeInt = Field(
        description="elements of the outputs of its conv, norm and linear layers for one image"
    )
    layers: NonNegativeInt = Field(description="conv, norm and linear layers")
    family: str = Field(description="pairs within one are of the same style")
    pooled: NonNegativeInt = Field(0, description="width of the globally pooled feature")


class ObjectiveProfile(FrozenModel):
    """What an objective brings beside the networks."""

    parameters: NonNegativeInt = 0
    bytes: NonNegativeInt = Field(0, description="of parameters and buffers, as memory banks")
    multiply_adds: NonNegativeInt = Field(
        0, description="of one forward pass on one image; see docs/planning.md for what counts"
    )


class Cell(FrozenModel):
    """(pair, method) with all its seeds. A method that needs no teacher has one cell a student."""

    pair: str
    method: str
    teacher: str | None
    student: str
    spec: RunSpec = Field(description="of the first seed")
    runs: dict[NonNegativeInt, str] = Field(description="seed to identity")
    extra: ObjectiveProfile = Field(
        default_factory=ObjectiveProfile, description="no part of an identity"
    )
    needs: tuple[str, ...] = Field((), description="what its terms read of the teacher, likewise")

    @property
    def digest(self) -> str:
        """Hash of the cell's runs: another in a file's name means other runs."""
        return cells_digest([self])

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


class Expansion(FrozenModel):
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
    images: ImageInfo
    networks: dict[str, NetworkProfile] = Field(description="of every teacher and student")
    code: dict[str, SourceFile] = Field(
        default_factory=dict, description="the files that its runs' numbers depend on, by path"
    )
    notes: tuple[str, ...] = Field((), description="what is written and has no full effect")

    def code_of(self, spec: RunSpec) -> dict[str, str]:
        """Return the digests of the files that one of its runs' numbers depend on, by path."""
        return closure_digests(
            run_source_roots(spec, lambda name: self.networks[name].family), self.code
        )

    def views_code_of(self, teacher: str) -> dict[str, str]:
        """Return the digests of the files that stored views of a teacher depend on, by path."""
        family = self.networks[self.teacher(teacher).spec.network].family
        return closure_digests(views_source_roots(self.dataset, family), self.code)

    @cached_property
    def _cells_by_key(self) -> dict[str, Cell]:
        return {cell.key: cell for cell in self.cells}

    def cell(self, pair: str, method: str) -> Cell:
        """Return one cell.

        Raises:
            StudyError: the study has no such cell.
        """
        return self.cell_by_key(f"{pair}/{method}")

    def cell_by_key(self, key: str) -> Cell:
        """Return one cell, as `cell` does."""
        try:
            return self._cells_by_key[key]
        except KeyError:
            raise StudyError(
                f"study {self.study} has no cell '{key}'{suggest(key, self._cells_by_key)}"
            ) from None

    def cell_of(self, teacher: str, student: str, method: str) -> Cell:
        """Return the cell that fills one place of a pair's row: shared where it has no teacher."""
        shared = self._cells_by_key.get(f"{student}/{method}")
        return shared or self.cell(f"{teacher}--{student}", method)

    def methods_of(self, teacher: str, student: str) -> list[str]:
        """Return the methods of one pair: all of the study's but those the pair goes without."""
        keys = (f"{teacher}--{student}", student)
        return [
            method
            for method in self.methods
            if any(f"{key}/{method}" in self._cells_by_key for key in keys)
        ]

    def specs(self) -> Iterator[tuple[str, TeacherSpec | RunSpec]]:
        """Yield the identity that each teacher and run has in the study, and its spec."""
        yield from ((node.id, node.spec) for node in self.teachers)
        for cell in self.cells:
            yield from ((identity, cell.run(seed)) for seed, identity in cell.runs.items())

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


class EditedExpansionError(StudyError):
    """An expansion is not what `skd expand` wrote. Says how that shows."""


def cells_digest(cells: Iterable[Cell]) -> str:
    """Hash the runs of some cells: another in a file's name means other runs."""
    return digest(sorted(run for cell in cells for run in cell.runs.values()))[:8]


def check_expected_identity(what: str, identity: str, expected: str | None) -> None:
    """Refuse to go on where something is not what the workflow was started with.

    Raises:
        StudyError: the sheet or the code has changed since.
    """
    if expected is not None and expected != identity:
        raise StudyError(
            f"{what} is now {identity}, not {expected}: the sheet or the code changed after the "
            "workflow was started; start it again"
        )


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
    return _read_fresh(path, sheet) or _made_anew(name, sheet, results, path)


def load_expansion_readonly(name: str, results: Path) -> Expansion:
    """Return a study's expansion as `load_expansion` does, and leave nothing in the results.

    Raises:
        StudyError: as `load_expansion`.
    """
    sheet = find_sheet(name)
    if (fresh := _read_fresh(expansion_path(results, sheet.stem), sheet)) is not None:
        return fresh
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "specs.json"
        return _made_anew(name, sheet, results, path, "--output", str(path))


def _made_anew(name: str, sheet: Path, results: Path, path: Path, *options: str) -> Expansion:
    """Have a study expanded to a file by another process, which imports torch; read the file."""
    command = [sys.executable, "-m", "skd", "expand", name, *options, "--results", str(results)]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**subprocess_environment(), "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    lines = done.stderr.splitlines()
    for warning in (line for line in lines if line.startswith(WARNING_PREFIX)):
        print(warning, file=sys.stderr)
    if done.returncode:
        said = "\n".join(line for line in lines if not line.startswith(WARNING_PREFIX))
        said = said.strip().removeprefix("skd: ")
        raise StudyError(said or f"{' '.join(command)} failed")
    expansion = _read_fresh(path, sheet)
    if expansion is None:
        raise StudyError(f"{sheet} or the code was edited while it was read; start again")
    return expansion


def write_expansion(expansion: Expansion, results: Path, path: Path | None = None) -> Path:
    """Write a study's expansion where workflow and report look for it, or to another file."""
    path = path or expansion_path(results, expansion.study)
    data = expansion.model_dump(mode="json", by_alias=True)
    for node, written in zip(expansion.teachers, data["teachers"], strict=True):
        written["spec"] = canonical(node.spec)
    for cell, written in zip(expansion.cells, data["cells"], strict=True):
        written["spec"] = canonical(cell.spec)
    write_json(path, {"content": digest(data), **data})
    return path


def read_expansion_file(path: Path) -> Expansion | None:
    """Return an expansion as it is kept; none where this code cannot read it.

    Raises:
        EditedError: it is not what `skd expand` wrote.
    """
    try:
        data = read_json(path)
        content = data.pop("content", None) if isinstance(data, dict) else None
        expansion = Expansion.restore(data)
    except (OSError, ValueError):
        return None
    if content not in (None, digest(data)):  # older files have none
        raise EditedExpansionError(
            f"{path} was edited by hand: its content is not that of its digest"
        )
    for identity, spec in expansion.specs():
        if spec.identity != identity:
            raise EditedExpansionError(
                f"{path} was edited by hand, or is of another release: what it calls {identity} "
                f"has a spec of identity {spec.identity}"
            )
    return expansion


def known_checkpoint_hashes(results: Path, study: str) -> dict[Path, str]:
    """Return the hashes of the checkpoints that an earlier expansion of the study has seen.

    They go on to identify an imported teacher whose file has been removed since.
    """
    try:
        earlier = read_expansion_file(expansion_path(results, study))
    except EditedExpansionError:
        earlier = None
    return {
        node.source.file: node.spec.sha256
        for node in (earlier.teachers if earlier else ())
        if node.source is not None and node.source.file is not None
    }


def expansion_sources_digest(sheet: Path) -> str:
    """Hash all that an expansion depends on: the sheet, the code, and the checkpoints it names."""
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sheet_files(sheet)))
    for name, content in source_files():
        state.update(name.encode() + content)
    for teacher in read_sheet(sheet).teachers.values():
        file = teacher.import_.file if teacher.import_ else None
        if file is not None and file.is_file():
            stat = file.stat()
            state.update(f"{file} {stat.st_size} {stat.st_mtime_ns}".encode())
    return state.hexdigest()


def _read_fresh(path: Path, sheet: Path) -> Expansion | None:
    """Return the expansion that is kept, or none where it is out of date or was edited."""
    try:
        expansion = read_expansion_file(path)
    except EditedExpansionError as error:
        print(f"skd: {error}; it is made anew from the sheet", file=sys.stderr)
        return None
    return expansion if expansion and expansion.sources == expansion_sources_digest(sheet) else None
