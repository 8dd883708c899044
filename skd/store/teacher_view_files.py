"""Teacher views: files with a teacher's outputs on every view of every training image.

Imports no torch. The files are in the teacher's folder in the store::

    teachers/<id>/views-<data set's digest>/logits-float16.npy    (N, V, C), numbered as in skd.data
                                            logits-float16.json   the card, written last
                                            pooled-float16.npy    (N, V, D), with its own card

A card names the teacher, the images and the digest of its file. A file without a card is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal, get_args

from pydantic import NonNegativeFloat, PositiveInt

from skd.code.accepted import changes_since, read_acceptances
from skd.common.choices import ViewsOutput, ViewsPrecision
from skd.common.frozen import FrozenModel, canonical, digest
from skd.store.json_files import StoreError, read_model
from skd.store.store import StoreEntry
from skd.study.spec import DatasetSpec, Recipe

VIEWS_PRECISIONS: tuple[ViewsPrecision, ...] = get_args(ViewsPrecision)
BYTES_PER_ELEMENT = {"float16": 2, "float32": 4}
# The stored output for each need of a term. Maps are not stored.
_STORED: dict[str, ViewsOutput] = {"teacher_logits": "logits", "teacher_pooled": "pooled"}
_MAPS = "teacher_features"


class ViewsCard(FrozenModel):
    """Content and cost of one file of teacher views."""

    schema_version: Literal[1] = 1
    teacher: str
    teacher_sha256: str
    dataset: DatasetSpec
    output: ViewsOutput
    precision: ViewsPrecision
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]  # images, views, width
    sha256: str
    seconds: NonNegativeFloat  # of the forward passes, for all outputs of one pass
    device: str
    largest_difference: NonNegativeFloat  # from the live teacher, on a sample of views
    made_at: str
    code: dict[str, str] | None = None  # digests of the source files that computed it, by path


@dataclass(frozen=True)
class ViewsFile:
    """One output of one teacher on one data set, in one precision. The file need not exist.

    ``code`` has the digests, by path, of the source files that compute the views today. A file
    that other code computed counts as missing. ``None`` accepts a file of any code.
    """

    teacher: StoreEntry
    dataset: DatasetSpec
    output: ViewsOutput
    precision: ViewsPrecision
    code: Mapping[str, str] | None = field(default=None, compare=False)

    @property
    def folder(self) -> Path:
        """The folder of all outputs on the same images."""
        return self.teacher.folder / f"views-{digest(canonical(self.dataset))[:8]}"

    @property
    def path(self) -> Path:
        """The array, in NumPy's format."""
        return self.folder / f"{self.output}-{self.precision}.npy"

    @property
    def card_path(self) -> Path:
        """The card of the array."""
        return self.path.with_suffix(".json")

    def is_made(self) -> bool:
        """Return whether there is a usable file. Other functions report an unreadable card."""
        try:
            return self.card() is not None
        except StoreError:
            return False

    def card(self) -> ViewsCard | None:
        """Return the card; ``None`` if there is no file, or if other code computed it.

        Raises:
            StoreError: the card cannot be read.
        """
        remedy = "Remove its folder, then: skd teacher-views"
        card = read_model(ViewsCard, self.card_path, remedy, lambda _: None)
        is_code_known = card is not None and card.code and self.code
        if is_code_known and changes_since(card.code, self.code, read_acceptances()):
            return None
        return card


def stored_outputs(needs: Iterable[str]) -> tuple[ViewsOutput, ...] | None:
    """Return the outputs that terms read; ``None`` if one needs maps, which are not stored.

    Modules of the teacher, which a term may need too, are read from its weights.
    """
    needs = set(needs)
    if _MAPS in needs:
        return None
    return tuple(output for need, output in _STORED.items() if need in needs)


def storable_outputs(recipe: Recipe, needs: Iterable[str]) -> tuple[ViewsOutput, ...] | None:
    """Return the outputs that terms read; ``None`` if those on a recipe's views are not stored.

    Args:
        recipe: of the run; its views may be unlimited, or be mixed.
        needs: of the method's terms.
    """
    return None if recipe.stored_views_problem() else stored_outputs(needs)


def views_bytes(images: int, views: int, width: int, precision: ViewsPrecision) -> int:
    """Return the size of one file's array in bytes."""
    return prod((images, views, width, BYTES_PER_ELEMENT[precision]))
