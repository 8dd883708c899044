"""Finding identities of runs and teachers, and the studies that contain them.

The stored expansions are used as they are, even if outdated. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from skd.common.errors import SkdError, suggest
from skd.jobs.workers import history_log
from skd.planning.batches import read_batches
from skd.provenance.entry_reading import display_path
from skd.store.store import Store
from skd.study.expansion import Cell, Expansion, TeacherNode
from skd.study.expansion_files import EditedExpansionError, read_expansion_file
from skd.study.spec import RunSpec, TeacherSpec

EntryKind = Literal["run", "teacher"]
MIN_CHARACTERS = 4
MAX_CANDIDATES = 8
UNUSABLE = "damaged, edited or from another release"
ADDRESS_FORMS = "give an identity, its first characters, STUDY/PAIR/METHOD/SEED, or STUDY/TEACHER"


class FindError(SkdError, ValueError):
    """A text names no run or teacher, or several. The message says how to find the name."""


@dataclass(frozen=True)
class Occurrence:
    """A place in a study with a run or, if ``node`` is set, a teacher."""

    expansion: Expansion
    id: str
    node: TeacherNode | None = None
    cell: Cell | None = None
    seed: int = 0

    @property
    def kind(self) -> EntryKind:
        """Whether it is a run or a teacher."""
        return "teacher" if self.node else "run"

    @property
    def label(self) -> str:
        """Its name for users."""
        name = f"teacher {self.node.name}" if self.node else f"{self.cell.key} seed {self.seed}"
        return f"{self.expansion.study}: {name}"

    @property
    def spec(self) -> TeacherSpec | RunSpec:
        """The spec of the run or teacher."""
        return self.node.spec if self.node else self.cell.run(self.seed)

    def data(self) -> dict[str, str | int]:
        """Return the place as plain data."""
        if self.node:
            return {"study": self.expansion.study, "teacher": self.node.name}
        cell = {"pair": self.cell.pair, "method": self.cell.method, "seed": self.seed}
        return {"study": self.expansion.study, **cell}

    def logs(self, results: Path) -> list[Path]:
        """Return the existing logs of its job: of the last attempt, and of all attempts."""
        folder = results / self.expansion.study / "logs"
        if self.node:
            log = folder / "teachers" / f"{self.node.name}-{self.node.id}.log"
        else:
            log = folder / f"{self._batch_path(results)}.log"
        return [path for path in (log, history_log(log)) if path.is_file()]

    def _batch_path(self, results: Path) -> str:
        return next(
            batch.path
            for batch in read_batches(self.expansion, results).batches
            if batch.pair == self.cell.pair and self.cell.method in batch.methods
        )


@dataclass(frozen=True)
class ExpandedStudies:
    """The studies with an expansion in a results folder.

    Attributes:
        expansions: by the study's name.
        unreadable: names of studies whose expansion is damaged, edited or from another release.
    """

    expansions: dict[str, Expansion]
    unreadable: tuple[str, ...]

    @classmethod
    def read(cls, results: Path) -> ExpandedStudies:
        """Read the expansions in a results folder."""
        studies = {path.parent.name: _read(path) for path in sorted(results.glob("*/specs.json"))}
        return cls(
            {name: expansion for name, expansion in studies.items() if expansion},
            tuple(name for name, expansion in studies.items() if not expansion),
        )

    @cached_property
    def occurrences(self) -> dict[str, list[Occurrence]]:
        """The places of each identity, as a teacher or as a run."""
        index: dict[str, list[Occurrence]] = {}
        for expansion in self.expansions.values():
            places = [Occurrence(expansion, node.id, node) for node in expansion.teachers]
            for cell in expansion.cells:
                runs = cell.runs.items()
                places += [Occurrence(expansion, id_, None, cell, seed) for seed, id_ in runs]
            for place in places:
                index.setdefault(place.id, []).append(place)
        return index

    def label(self, kind: EntryKind, identity: str) -> str | None:
        """Return a name of a run or teacher in a study; ``None`` if no study has it."""
        places = self.occurrences.get(identity, [])
        return next((place.label for place in places if place.kind == kind), None)


def find_identity(text: str, store: Store, studies: ExpandedStudies) -> str:
    """Return the identity of a run or teacher.

    Args:
        text: an identity, its first characters, or an address in a study.
        store: the store, whose entries are searched.
        studies: the studies, whose identities and addresses are searched.

    Raises:
        FindError: no run or teacher matches, or several do; the message lists what is allowed.
    """
    if "/" in text:
        return _at_address(text, studies)
    if len(text) < MIN_CHARACTERS:
        raise FindError(
            f"'{text}' is too short: give at least {MIN_CHARACTERS} characters of an identity"
        )
    known = {*studies.occurrences}
    for folder in (store.root / "runs", store.teachers):
        if folder.is_dir():
            known |= {path.name for path in folder.iterdir() if path.is_dir()}
    candidates = sorted(name for name in known if name.startswith(text.lower()))
    if len(candidates) == 1 or text in candidates:
        return text if text in candidates else candidates[0]
    if candidates:
        listed = [_with_label(name, studies) for name in candidates[:MAX_CANDIDATES]]
        more = len(candidates) - len(listed)
        raise FindError(
            f"{len(candidates)} identities start with '{text}'; give more characters: "
            f"{', '.join(listed)}{f', and {more} more' if more else ''}"
        )
    root = display_path(store.root)
    raise FindError(
        f"no run or teacher '{text}' in {root}: {ADDRESS_FORMS}; `ls {root}/runs "
        f"{display_path(store.teachers)}` lists identities, `skd status STUDY` pairs and methods"
    )


def _at_address(text: str, studies: ExpandedStudies) -> str:
    study, *parts = text.strip("/").split("/")
    if len(parts) not in (1, 3):
        raise FindError(f"'{text}' is not an address: {ADDRESS_FORMS}")
    if study in studies.unreadable:
        raise FindError(
            f"the specs.json of study {study} is {UNUSABLE}; write it again: skd expand {study}"
        )
    if study not in studies.expansions:
        raise FindError(
            f"unknown study '{study}'{suggest(study, studies.expansions)} (these are expanded; to "
            "expand another one: skd expand STUDY)"
        )
    expansion = studies.expansions[study]
    if len(parts) == 1:
        return expansion.teacher(parts[0]).id
    pair, method, seed = parts
    names = tuple(pair.split("--"))
    # A method without a teacher has one cell for all pairs with that student.
    is_pair = names in expansion.pairs
    cell = expansion.cell_of(*names, method) if is_pair else expansion.cell(pair, method)
    numbers = {str(number): identity for number, identity in cell.runs.items()}
    if seed not in numbers:
        raise FindError(f"no seed '{seed}' of {study}/{cell.key}{suggest(seed, numbers)}")
    return numbers[seed]


def _with_label(identity: str, studies: ExpandedStudies) -> str:
    """Return an identity with the first of its names in the studies."""
    places = studies.occurrences.get(identity)
    return f"{identity} ({places[0].label})" if places else identity


def _read(path: Path) -> Expansion | None:
    try:
        return read_expansion_file(path)
    except EditedExpansionError:
        return None
