"""The store: runs and teachers by identity, shared by all studies. Imports no torch.

``results/runs/<id>/`` and ``results/teachers/<id>/`` hold, as a run goes on::

    spec.json             what is trained
    execution.json        how: fixed at the first step, so that a resume cannot change it
    lease-<n>.json        who trains it now
    checkpoint*.pt        where it stands
    progress.json         how far it is, every few seconds
    failure.json          why it stopped by itself
    weights.safetensors, test_logits.safetensors, record.json     once it is done
    objective.safetensors what its method keeps, if anything (SKD its simplifier), likewise
    card.json             of a teacher at hand

No rule of the workflow owns these folders: Snakemake deletes what a rule declares.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from skd.common.errors import warn_once
from skd.common.files import path_from_environment, write_json
from skd.common.frozen import canonical
from skd.common.lease import read_holder
from skd.store.json_files import StoreError, read_model
from skd.store.record_checks import card_problem, failure_problem, progress_problem, record_problem
from skd.store.records import Failure, ProgressNote, Record, RunOutcome, TeacherCard
from skd.study.spec import RunSpec

REMEDY = "Move it away, then: skd train, or skd teacher"


@dataclass(frozen=True)
class StoreEntry:
    """One run's or teacher's folder."""

    folder: Path

    @property
    def id(self) -> str:
        """The identity, which is the folder's name."""
        return self.folder.name

    @property
    def record_path(self) -> Path:
        """Where a finished run's record is."""
        return self.folder / "record.json"

    @property
    def weights_path(self) -> Path:
        """Where the final weights are."""
        return self.folder / "weights.safetensors"

    @property
    def logits_path(self) -> Path:
        """Where the test-set logits are (fp16, in the test set's order)."""
        return self.folder / "test_logits.safetensors"

    @property
    def objective_path(self) -> Path:
        """Where what the run's objective keeps is, if it keeps anything."""
        return self.folder / "objective.safetensors"

    @property
    def failure_path(self) -> Path:
        """Where a failed run's note is."""
        return self.folder / "failure.json"

    @property
    def progress_path(self) -> Path:
        """Where a run under way says how far it is."""
        return self.folder / "progress.json"

    @property
    def card_path(self) -> Path:
        """Where a teacher's card is."""
        return self.folder / "card.json"

    def record(self) -> Record | None:
        """Return the record, or none while there is none.

        Raises:
            StoreError: the record cannot be read, is of another schema version, or is
                inconsistent: see `skd.store.record_checks`.
        """
        return read_model(
            Record, self.record_path, REMEDY, lambda found: record_problem(found, self.id)
        )

    def finished(self) -> bool:
        """Return whether there is a sound record; why one is not is for the training to tell."""
        try:
            return self.record() is not None
        except StoreError:
            return False

    def failure(self) -> Failure | None:
        """Return the failure note, or none.

        Raises:
            StoreError: the note cannot be read.
        """
        return read_model(Failure, self.failure_path, REMEDY, failure_problem)

    def failure_or_none(self) -> Failure | None:
        """Return the failure note; one that cannot be read is none, and is warned of."""
        try:
            return self.failure()
        except StoreError:
            warn_once(f"{self.failure_path} cannot be read, and counts as no note of a failure")
            return None

    def progress(self) -> ProgressNote | None:
        """Return how far a run under way is; none where it does not say."""
        try:
            return read_model(ProgressNote, self.progress_path, REMEDY, progress_problem)
        except StoreError:  # it is only told, and soon anew
            return None

    def card(self) -> TeacherCard | None:
        """Return the teacher's card, or none while the teacher is not at hand.

        Raises:
            StoreError: the card cannot be read, or is inconsistent: see `skd.store.record_checks`.
        """
        return read_model(TeacherCard, self.card_path, REMEDY, self._judge_card)

    def has_card(self) -> bool:
        """Return whether there is a teacher's sound card, as `finished` does of a record."""
        try:
            return self.card() is not None
        except StoreError:
            return False

    def _judge_card(self, card: TeacherCard) -> str | None:
        try:
            record = self.record()
        except StoreError:  # whoever needs the record is told
            record = None
        return card_problem(card, self.id, record)

    def check_link(self) -> None:
        """Check that the folder is this run's own.

        Raises:
            StoreError: it is a link to another run's folder, or to nothing.
        """
        if not self.folder.is_symlink():
            return
        target = self.folder.resolve()
        if target.name != self.id:
            raise StoreError(
                f"{self.folder} is a link to another folder, {target}; remove the link, or have it "
                f"lead to a folder that is called {self.id}"
            )
        if not target.is_dir():
            raise StoreError(f"{self.folder} is a link to {target}, which is no folder; remove it")

    def write_spec(self, spec: RunSpec) -> None:
        """Leave the resolved spec beside the checkpoints, for people."""
        write_json(self.folder / "spec.json", canonical(spec))

    def write(self, model: Record | Failure | TeacherCard | ProgressNote) -> None:
        """Write one of the entry's files; a record clears what was said before it."""
        path = {
            Record: self.record_path,
            Failure: self.failure_path,
            TeacherCard: self.card_path,
            ProgressNote: self.progress_path,
        }[type(model)]
        data = model.model_dump(mode="json")
        if isinstance(model, Record):
            data["spec"] = canonical(model.spec)
        write_json(path, data)
        if isinstance(model, Record):
            for earlier in (self.failure_path, self.progress_path):
                with contextlib.suppress(OSError):  # the record counts, whatever stays beside it
                    earlier.unlink()


@dataclass(frozen=True)
class Store:
    """The folder that holds runs and teachers."""

    root: Path

    @property
    def teachers(self) -> Path:
        """Where teachers are: `$SKD_TEACHERS`, which several users or clones may share, or here."""
        return path_from_environment("SKD_TEACHERS") or self.root / "teachers"

    def run(self, identity: str) -> StoreEntry:
        """Return a run's folder, which need not exist yet."""
        return StoreEntry(self.root / "runs" / identity)

    def teacher(self, identity: str) -> StoreEntry:
        """Return a teacher's folder, which need not exist yet."""
        return StoreEntry(self.teachers / identity)


def run_outcome(entry: StoreEntry, seed: int) -> RunOutcome:
    """Return what has come of a run so far, from its files alone.

    A record that cannot be used makes the run unreadable, as does such a failure note of a run
    that nobody trains.
    """
    try:
        record = entry.record()
        if record is not None:
            return RunOutcome(
                id=entry.id,
                seed=seed,
                outcome="done",
                last_top1=record.last.top1,
                best_top1=record.best.top1,
            )
        current = read_holder(entry.folder)
        if current is not None and current.is_alive():
            return RunOutcome(id=entry.id, seed=seed, outcome="running", reason=str(current))
        failure = entry.failure()
    except StoreError as error:
        return RunOutcome(id=entry.id, seed=seed, outcome="unreadable", reason=str(error))
    if failure is not None:
        return RunOutcome(id=entry.id, seed=seed, outcome="failed", reason=failure.reason)
    begun = any(entry.folder.glob("checkpoint*.pt"))
    return RunOutcome(id=entry.id, seed=seed, outcome="interrupted" if begun else "missing")
