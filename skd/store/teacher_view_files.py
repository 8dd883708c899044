"""Teacher views: a teacher's outputs on every view of every training image, as files.

Imports no torch. Beside the teacher's weights in the store::

    teachers/<id>/views-<data set's digest>/logits-float16.npy    (N, V, C), numbered as in skd.data
                                            logits-float16.json   the card, written last
                                            pooled-float16.npy    (N, V, D), with its own card

A card says which teacher, images and file it is of; without it there is no file to be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from skd.code.accepted import changes_since, read_acceptances
from skd.common.frozen import FrozenModel, canonical, digest
from skd.store.json_files import StoreError, read_model
from skd.store.store import StoreEntry
from skd.study.spec import DatasetSpec

ViewsOutput = Literal["logits", "pooled"]
ViewsPrecision = Literal["float16", "float32"]
VIEWS_PRECISIONS: tuple[ViewsPrecision, ...] = ("float16", "float32")
# Where a run has its teacher's outputs from, each step: a forward pass, or stored views.
TeacherOutputs = Literal["live", "float16", "float32"]
BYTES_PER_ELEMENT = {"float16": 2, "float32": 4}
# Which output each thing that a term may need is, if it is stored at all.
_STORED: dict[str, ViewsOutput] = {"teacher_logits": "logits", "teacher_pooled": "pooled"}


class ViewsCard(FrozenModel):
    """What one file of teacher views holds, and what it took."""

    schema_version: Literal[1] = 1
    teacher: str
    teacher_sha256: str
    dataset: DatasetSpec
    output: ViewsOutput
    precision: ViewsPrecision
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]  # images, views, width
    sha256: str
    seconds: NonNegativeFloat  # of forward passes, for all outputs that were made together
    device: str
    largest_difference: NonNegativeFloat  # from the live teacher, on a sample of views
    made_at: str
    code: dict[str, str] | None = None  # digests of the source files that made it, by path


@dataclass(frozen=True)
class ViewsFile:
    """One output of one teacher on one data set, in one precision; it need not exist yet.

    ``code`` has the digests of the source files that make it today: a file that other code has made
    counts as not there, and is made anew. None: whichever code has made it.
    """

    teacher: StoreEntry
    dataset: DatasetSpec
    output: ViewsOutput
    precision: ViewsPrecision
    code: Mapping[str, str] | None = field(default=None, compare=False)

    @property
    def folder(self) -> Path:
        """Where it is, with the other outputs on the same images."""
        return self.teacher.folder / f"views-{digest(canonical(self.dataset))[:8]}"

    @property
    def path(self) -> Path:
        """The array, as NumPy's .npy."""
        return self.folder / f"{self.output}-{self.precision}.npy"

    @property
    def card_path(self) -> Path:
        """The card."""
        return self.path.with_suffix(".json")

    def is_made(self) -> bool:
        """Return whether the file is there; a card that cannot be read is for others to tell."""
        try:
            return self.card() is not None
        except StoreError:
            return False

    def card(self) -> ViewsCard | None:
        """Return the card, or none while the file is not made, or is other code's.

        Raises:
            StoreError: the card cannot be read.
        """
        remedy = "Remove its folder, then: skd teacher-views"
        card = read_model(ViewsCard, self.card_path, remedy, lambda _: None)
        known = card is not None and card.code and self.code
        if known and changes_since(card.code, self.code, read_acceptances()):
            return None
        return card


def stored_outputs(needs: Iterable[str]) -> tuple[ViewsOutput, ...] | None:
    """Return the outputs that terms read, or none where one needs what is not stored: maps."""
    needs = set(needs)
    if not needs <= _STORED.keys():
        return None
    return tuple(output for need, output in _STORED.items() if need in needs)


def views_bytes(images: int, views: int, width: int, precision: ViewsPrecision) -> int:
    """Return the bytes of one file's array."""
    return prod((images, views, width, BYTES_PER_ELEMENT[precision]))
