"""The teachers of a sheet, resolved to specs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from skd.common.files import sha256_of
from skd.expansion.sheet_checks import check_network_name, check_seed
from skd.losses.methods import resolve_method
from skd.study.expansion import TeacherNode
from skd.study.sheet import ImportSource, Sheet, SheetMethod, SheetTeacher, TrainSource
from skd.study.sheet_files import StudyError
from skd.study.sheet_recipes import WrittenRecipe
from skd.study.spec import DatasetSpec, ImportedTeacher, RunSpec, TeacherSpec, TrainedTeacher


def resolve_teachers(
    sheet: Sheet, recipe: WrittenRecipe, train_images: int, hashes: Mapping[Path, str]
) -> dict[str, TeacherNode]:
    """Return the teachers of a sheet by name.

    Args:
        sheet: the sheet.
        recipe: the study's recipe.
        train_images: number of training images.
        hashes: SHA-256 of checkpoints whose files may be missing, by path.

    Raises:
        StudyError: an unknown network, an invalid seed or recipe, or an imported teacher that was
            trained on the validation images and does not say so.
    """
    return {
        name: _resolve_teacher(sheet, name, entry, recipe, train_images, hashes)
        for name, entry in sheet.teachers.items()
    }


def _resolve_teacher(
    sheet: Sheet,
    name: str,
    entry: SheetTeacher,
    recipe: WrittenRecipe,
    train_images: int,
    hashes: Mapping[Path, str],
) -> TeacherNode:
    where = f"teachers.{name}"
    network = entry.network or name
    check_network_name(f"{where}: network", network)
    spec: TeacherSpec
    if entry.train is not None:
        spec = _trained_teacher(sheet, network, entry.train, recipe, train_images, where)
        origin = f"trained here, seed {entry.train.seed}"
    else:
        spec = _imported_teacher(sheet, network, entry.import_, hashes, where)
        origin = entry.import_.url or f"imported from {entry.import_.file.name}"
    return TeacherNode(
        name=name,
        id=spec.identity,
        spec=spec,
        origin=origin,
        source=entry.import_,
        leaks=entry.import_ is not None and sheet.dataset.split == "validation",
    )


def _trained_teacher(
    sheet: Sheet,
    network: str,
    source: TrainSource,
    recipe: WrittenRecipe,
    train_images: int,
    where: str,
) -> TrainedTeacher:
    check_seed(f"{where}.train", source.seed)
    own_recipe = recipe.with_changes(source.recipe, f"{where}.train.recipe")
    return TrainedTeacher(
        run=RunSpec(
            dataset=sheet.dataset,
            network=network,
            method=resolve_method(SheetMethod(name="student"), {}),
            recipe=own_recipe.validated(train_images),
            seed=source.seed,
        )
    )


def _imported_teacher(
    sheet: Sheet, network: str, source: ImportSource, hashes: Mapping[Path, str], where: str
) -> ImportedTeacher:
    if sheet.dataset.split == "validation" and not source.seen_validation:
        raise StudyError(
            f"{where}: an imported teacher has seen the validation images of 'split: validation'; "
            "train the teacher here, or write seen_validation: true to use it and have the report "
            "say so"
        )
    return ImportedTeacher(
        network=network,
        dataset=DatasetSpec(name=sheet.dataset.name, folder=sheet.dataset.folder),
        sha256=_checkpoint_sha256(source, hashes),
    )


def _checkpoint_sha256(source: ImportSource, hashes: Mapping[Path, str]) -> str:
    """Return the SHA-256 of a checkpoint, or a placeholder if neither file nor hash is known.

    A dry run works with the placeholder. Training does not, because it needs the file.
    """
    if source.sha256 is not None:
        return source.sha256
    if source.file.is_file():
        return sha256_of(source.file)
    return hashes.get(source.file, f"not at hand: {source.file.name}")  # is part of identities
