"""The store: runs and teachers by identity, shared by all studies. Imports no torch.

``results/runs/<id>/`` and ``results/teachers/<id>/`` contain::

    spec.json             what is trained
    execution.json        how it is executed: fixed at the first step, for all resumes
    lease-<n>.json        the process that trains it now
    checkpoint*.pt        the state of a training
    progress.json         how far the training is, updated every few seconds
    failure.json          why the training failed
    weights.safetensors, test_logits.safetensors, record.json     results of a finished run
    objective.safetensors tensors that the method stores, if any: SKD stores its simplifier
    card.json             a teacher's measured accuracy and origin

No rule of the workflow declares these folders as outputs, because Snakemake deletes outputs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from skd.common.errors import warn_once
from skd.common.files import path_from_environment, write_json
from skd.common.frozen import canonical
from skd.store.json_files import StoreError, read_model
from skd.store.record_checks import card_problem, failure_problem, progress_problem, record_problem
from skd.store.records import Failure, ProgressNote, Record, TeacherCard
from skd.study.spec import RunSpec

REMEDY = "Move it away, then: skd train, or skd teacher"


@dataclass(frozen=True)
class StoreEntry:
    """The folder of one run or teacher."""

    folder: Path

    @property
    def id(self) -> str:
        """The identity, which is the folder's name."""
        return self.folder.name

    @property
    def record_path(self) -> Path:
        """The record of a finished run."""
        return self.folder / "record.json"

    @property
    def weights_path(self) -> Path:
        """The final weights."""
        return self.folder / "weights.safetensors"

    @property
    def logits_path(self) -> Path:
        """The logits on the test set: fp16, in the order of the test set."""
        return self.folder / "test_logits.safetensors"

    @property
    def objective_path(self) -> Path:
        """The tensors that the run's objective stores, if any."""
        return self.folder / "objective.safetensors"

    @property
    def failure_path(self) -> Path:
        """The note of a failed run."""
        return self.folder / "failure.json"

    @property
    def progress_path(self) -> Path:
        """The progress of a run that is being trained."""
        return self.folder / "progress.json"

    @property
    def card_path(self) -> Path:
        """The card of a teacher."""
        return self.folder / "card.json"

    def record(self) -> Record | None:
        """Return the record; ``None`` if there is no file.

        Raises:
            StoreError: the record cannot be read, has another schema version, or is inconsistent:
                see `skd.store.record_checks`.
        """
        return read_model(
            Record, self.record_path, REMEDY, lambda record: record_problem(record, self.id)
        )

    def is_finished(self) -> bool:
        """Return whether there is a usable record. The training reports an unusable one."""
        try:
            return self.record() is not None
        except StoreError:
            return False

    def failure(self) -> Failure | None:
        """Return the failure note; ``None`` if there is no file.

        Raises:
            StoreError: the note cannot be used.
        """
        return read_model(Failure, self.failure_path, REMEDY, failure_problem)

    def failure_or_none(self) -> Failure | None:
        """Return the failure note; warn and return ``None`` if it cannot be used."""
        try:
            return self.failure()
        except StoreError:
            warn_once(f"{self.failure_path} cannot be read; it is ignored")
            return None

    def progress(self) -> ProgressNote | None:
        """Return how far a running training is; ``None`` if there is no usable note."""
        try:
            return read_model(ProgressNote, self.progress_path, REMEDY, progress_problem)
        except StoreError:  # only informs users, and is soon written again
            return None

    def card(self) -> TeacherCard | None:
        """Return the teacher's card; ``None`` if there is no file.

        Raises:
            StoreError: the card cannot be read, or is inconsistent: see `skd.store.record_checks`.
        """
        return read_model(TeacherCard, self.card_path, REMEDY, self._card_problem)

    def has_card(self) -> bool:
        """Return whether there is a usable card of a teacher."""
        try:
            return self.card() is not None
        except StoreError:
            return False

    def _card_problem(self, card: TeacherCard) -> str | None:
        try:
            record = self.record()
        except StoreError:  # the code that needs the record reports it
            record = None
        return card_problem(card, self.id, record)

    def check_link(self) -> None:
        """Check that the folder is not a link to another run's folder.

        Raises:
            StoreError: it is a link to a folder with another name, or to something else.
        """
        if not self.folder.is_symlink():
            return
        target = self.folder.resolve()
        if target.name != self.id:
            raise StoreError(
                f"{self.folder} is a link to another folder, {target}; remove the link, or link to "
                f"a folder with the name {self.id}"
            )
        if not target.is_dir():
            raise StoreError(
                f"{self.folder} is a link to {target}, which is not a folder; remove it"
            )

    def write_spec(self, spec: RunSpec) -> None:
        """Write the resolved spec, for users."""
        write_json(self.folder / "spec.json", canonical(spec))

    def write(self, model: Record | Failure | TeacherCard | ProgressNote) -> None:
        """Write one of the entry's files; a record removes failure note and progress."""
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
                with contextlib.suppress(OSError):  # the record takes precedence over both
                    earlier.unlink()


@dataclass(frozen=True)
class Store:
    """The results folder, with runs and teachers."""

    root: Path

    @property
    def teachers(self) -> Path:
        """The folder of teachers: `$SKD_TEACHERS`, which users may share, or ``teachers``."""
        return path_from_environment("SKD_TEACHERS") or self.root / "teachers"

    def run(self, identity: str) -> StoreEntry:
        """Return the entry of a run, which need not exist."""
        return StoreEntry(self.root / "runs" / identity)

    def teacher(self, identity: str) -> StoreEntry:
        """Return the entry of a teacher, which need not exist."""
        return StoreEntry(self.teachers / identity)
