"""The teachers of a sheet, resolved to specs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from skd.common.files import sha256_of
from skd.data.images import DatasetFacts
from skd.expansion.sheet_checks import check_network_at
from skd.expansion.teacher_training import TeacherTraining
from skd.study.expansion import TeacherNode
from skd.study.sheet import ImportSource, Sheet, SheetTeacher, network_in_specs
from skd.study.sheet_files import StudyError
from skd.study.sheet_recipes import WrittenRecipe
from skd.study.spec import DatasetSpec, ImportedTeacher


def resolve_teachers(
    sheet: Sheet, recipe: WrittenRecipe, dataset: DatasetFacts, hashes: Mapping[Path, str]
) -> dict[str, TeacherNode]:
    """Return the teachers of a sheet by name.

    Args:
        sheet: the sheet.
        recipe: the study's recipe.
        dataset: number and size of the images.
        hashes: SHA-256 of checkpoints whose files may be missing, by path.

    Raises:
        StudyError: an unknown network, an invalid seed, method, partner or recipe, or an imported
            teacher that was trained on the validation images and does not say so.
    """
    return {
        name: _resolve_teacher(sheet, name, entry, recipe, dataset, hashes)
        for name, entry in sheet.teachers.items()
    }


def _resolve_teacher(
    sheet: Sheet,
    name: str,
    entry: SheetTeacher,
    recipe: WrittenRecipe,
    dataset: DatasetFacts,
    hashes: Mapping[Path, str],
) -> TeacherNode:
    where = f"teachers.{name}"
    network = network_of(sheet, name)
    check_network_at(f"{where}: network", network, dataset, is_trained=entry.train is not None)
    if entry.train is not None:
        return declared_training(sheet, name, recipe).node(name, sheet.dataset, dataset)
    spec = _imported_teacher(sheet, network, entry.import_, hashes, where)
    return TeacherNode(
        name=name,
        id=spec.identity,
        spec=spec,
        origin=entry.import_.url or f"imported from {entry.import_.file.name}",
        source=entry.import_,
        leaks=sheet.dataset.split == "validation",
    )


def network_of(sheet: Sheet, name: str) -> str:
    """Return the network of a teacher of a sheet, as specs name it."""
    return network_in_specs(sheet, sheet.teachers[name].network or name)


def declared_training(sheet: Sheet, name: str, recipe: WrittenRecipe) -> TeacherTraining:
    """Return how a sheet trains a teacher that is not imported.

    Args:
        sheet: the sheet.
        name: the teacher's name.
        recipe: the study's recipe.

    Raises:
        StudyError: the recipe has an unknown setting, or a value that it cannot have.
    """
    where = f"teachers.{name}.train"
    source = sheet.teachers[name].train
    if source.partner is not None:
        partner = network_in_specs(sheet, source.partner)
        source = source.model_copy(update={"partner": partner})
    own_recipe = recipe.with_changes(source.recipe, f"{where}.recipe")
    return TeacherTraining(network_of(sheet, name), source, own_recipe, where)


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
