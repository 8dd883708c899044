"""From what a person types to an identity, and from an identity to the studies that ask for it.

From the expansions that are kept, as they are: nothing is expanded anew. Imports no torch.
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
from skd.study.expansion import (
    Cell,
    EditedExpansionError,
    Expansion,
    TeacherNode,
    read_expansion_file,
)
from skd.study.spec import RunSpec, TeacherSpec

EntryKind = Literal["run", "teacher"]
MIN_CHARACTERS = 4
MAX_CANDIDATES = 8
UNUSABLE = "damaged, edited or of another release"
ADDRESS_FORMS = "give an identity, its first characters, STUDY/PAIR/METHOD/SEED, or STUDY/TEACHER"


class FindError(SkdError, ValueError):
    """What was typed names no run or teacher, or several. Says how to find its name."""


@dataclass(frozen=True)
class Occurrence:
    """A place where a study asks for a run or, if it has a node, a teacher."""

    expansion: Expansion
    id: str
    node: TeacherNode | None = None
    cell: Cell | None = None
    seed: int = 0

    @property
    def kind(self) -> EntryKind:
        """Which part of the store has it."""
        return "teacher" if self.node else "run"

    @property
    def label(self) -> str:
        """How a person names it."""
        own = f"teacher {self.node.name}" if self.node else f"{self.cell.key} seed {self.seed}"
        return f"{self.expansion.study}: {own}"

    @property
    def spec(self) -> TeacherSpec | RunSpec:
        """What is to be trained, or imported."""
        return self.node.spec if self.node else self.cell.run(self.seed)

    def data(self) -> dict[str, str | int]:
        """Return the place as plain data."""
        if self.node:
            return {"study": self.expansion.study, "teacher": self.node.name}
        cell = {"pair": self.cell.pair, "method": self.cell.method, "seed": self.seed}
        return {"study": self.expansion.study, **cell}

    def logs(self, results: Path) -> list[Path]:
        """Return the logs of its job that are there: of the last attempt, and of all."""
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
    """The studies expanded in a results folder.

    Attributes:
        expansions: by the study's name.
        unreadable: names of studies whose expansion is damaged, edited or of another release.
    """

    expansions: dict[str, Expansion]
    unreadable: tuple[str, ...]

    @classmethod
    def of(cls, results: Path) -> ExpandedStudies:
        """Read the expansions in a results folder."""
        found = {path.parent.name: _read(path) for path in sorted(results.glob("*/specs.json"))}
        return cls(
            {name: expansion for name, expansion in found.items() if expansion},
            tuple(name for name, expansion in found.items() if not expansion),
        )

    @cached_property
    def occurrences(self) -> dict[str, list[Occurrence]]:
        """Where each identity occurs, as a teacher or as a run."""
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
        """Return a name that a study has for a run or teacher; none where no study has it."""
        places = self.occurrences.get(identity, [])
        return next((place.label for place in places if place.kind == kind), None)


def find_identity(text: str, store: Store, studies: ExpandedStudies) -> str:
    """Return the identity of the run or teacher that a person means.

    Args:
        text: an identity, its first characters, or an address in a study.
        store: what is trained; an identity of the studies may not be, yet.
        studies: the expansions that addresses are looked up in.

    Raises:
        FindError: there is none, or there are several; the message lists what is allowed.
    """
    if "/" in text:
        return _at_address(text, studies)
    if len(text) < MIN_CHARACTERS:
        raise FindError(
            f"'{text}' is too short: give {MIN_CHARACTERS} characters of an identity at least"
        )
    known = {*studies.occurrences}
    for folder in (store.root / "runs", store.teachers):
        if folder.is_dir():
            known |= {path.name for path in folder.iterdir() if path.is_dir()}
    candidates = sorted(name for name in known if name.startswith(text.lower()))
    if len(candidates) == 1 or text in candidates:
        return text if text in candidates else candidates[0]
    if candidates:
        shown = [_named(name, studies) for name in candidates[:MAX_CANDIDATES]]
        more = len(candidates) - len(shown)
        raise FindError(
            f"'{text}' begins {len(candidates)} identities, give more of it: "
            f"{', '.join(shown)}{f', and {more} more' if more else ''}"
        )
    raise FindError(
        f"no run or teacher '{text}' in {display_path(store.root)}: {ADDRESS_FORMS}; `ls {display_path(store.root)}/runs "
        f"{display_path(store.teachers)}` lists identities, `skd status STUDY` pairs and methods"
    )


def _at_address(text: str, studies: ExpandedStudies) -> str:
    study, *parts = text.strip("/").split("/")
    if len(parts) not in (1, 3):
        raise FindError(f"'{text}' is no address: {ADDRESS_FORMS}")
    if study in studies.unreadable:
        raise FindError(
            f"the specs.json of study {study} is {UNUSABLE}; make it anew: skd expand {study}"
        )
    if study not in studies.expansions:
        raise FindError(
            f"unknown study '{study}'{suggest(study, studies.expansions)} (expanded here; another: "
            "skd expand STUDY)"
        )
    expansion = studies.expansions[study]
    if len(parts) == 1:
        return expansion.teacher(parts[0]).id
    pair, method, seed = parts
    names = tuple(pair.split("--"))
    # A method without a teacher has one cell for all pairs with that student.
    shared = names in expansion.pairs
    cell = expansion.cell_of(*names, method) if shared else expansion.cell(pair, method)
    numbers = {str(number): identity for number, identity in cell.runs.items()}
    if seed not in numbers:
        raise FindError(f"no seed '{seed}' of {study}/{cell.key}{suggest(seed, numbers)}")
    return numbers[seed]


def _named(identity: str, studies: ExpandedStudies) -> str:
    """Return an identity with the first name that a study has for it."""
    places = studies.occurrences.get(identity)
    return f"{identity} ({places[0].label})" if places else identity


def _read(path: Path) -> Expansion | None:
    try:
        return read_expansion_file(path)
    except EditedExpansionError:
        return None
