"""From a sheet to specs: the step that knows networks, terms and data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skd.code.closure import read_source_closure
from skd.common.errors import SkdError, suggest
from skd.common.files import sha256_of
from skd.common.plugins import BrokenFileError
from skd.data import dataset_facts, dataset_names
from skd.data.images import CHANNELS, DataError, DatasetFacts
from skd.expansion.dry_run import extra_facts, fit_problem, network_facts
from skd.losses.methods import check_settings, resolve_method, teacher_needs
from skd.models import check_network, network_family
from skd.study.code_roots import run_source_roots
from skd.study.expansion import (
    Cell,
    Expansion,
    ImageInfo,
    TeacherNode,
    expansion_sources_digest,
    known_checkpoint_hashes,
)
from skd.study.ineffective_settings import (
    explicit_settings,
    ineffective_default,
    ineffective_group,
    notes_on_long_settings,
    notes_on_unused_settings,
)
from skd.study.limits import folder_problem, seed_problem
from skd.study.sheet import (
    ImportSource,
    Sheet,
    SheetMethod,
    SheetTeacher,
    read_sheet,
)
from skd.study.sheet_files import StudyError, find_sheet, sheet_text
from skd.study.sheet_recipes import WrittenRecipe
from skd.study.spec import (
    DatasetSpec,
    ImportedTeacher,
    MethodSpec,
    RunSpec,
    TeacherSpec,
    TrainedTeacher,
)


def expand_study(name: str, results: Path = Path("results")) -> Expansion:
    """Resolve a study, given its sheet's name or path, to specs.

    ``results`` has what an earlier expansion knew of checkpoints that are gone.

    Raises:
        StudyError: names the place in the sheet and the allowed values.
    """
    path = find_sheet(name)
    sources = expansion_sources_digest(path)
    try:
        hashes = known_checkpoint_hashes(results, path.stem)
        return expand_sheet(read_sheet(path), path.stem, sheet_text(path), sources, hashes)
    except StudyError as error:
        message = str(error)
        raise StudyError(
            message if message.startswith(path.name) else f"{path.name}: {message}"
        ) from error


def expand_sheet(
    sheet: Sheet,
    study: str,
    text: str = "",
    sources: str = "",
    hashes: Mapping[Path, str] | None = None,
) -> Expansion:
    """Resolve a validated sheet to specs.

    Args:
        sheet: the sheet.
        study: its name.
        text: as written, for the report.
        sources: digest of what the result depends on.
        hashes: of checkpoints that may be gone, by their path.

    Raises:
        StudyError: an unknown data set, network, method, term or setting, or a method that cannot
            work on a pair.
    """
    known = _image_facts(sheet)
    for seed in sheet.seeds:
        _check_seed("seeds", seed)
    study_recipe = WrittenRecipe.of(sheet.recipe)
    teachers = {
        name: _teacher(sheet, name, entry, study_recipe, known.train_images, hashes or {})
        for name, entry in sheet.teachers.items()
    }
    cells: dict[str, Cell] = {}
    notes: list[str] = []
    for pair in sheet.pairs:
        at = f"pairs: {pair.teacher}--{pair.student}"
        _check_network("pairs: student", pair.student)
        check_settings(pair.settings, at)
        changes = sheet.student_recipes.get(pair.student, {})
        students = study_recipe.changed(changes, f"student_recipes.{pair.student}")
        if pair.student in sheet.student_recipes and students.recipe == sheet.recipe:
            notes.append(f"student_recipes: {pair.student}: its recipe is the study's")
        if {method.name for method in sheet.methods} <= set(pair.without):
            raise StudyError(f"{at}: without: no method is left; leave the pair out instead")
        for method in sheet.methods:
            own = students.changed(method.recipe, f"methods: {method.name}: recipe")
            resolved = resolve_method(method, sheet.settings)
            taught = bool(teacher_needs(resolved))
            if method.name in pair.without:
                if not taught:
                    raise StudyError(
                        f"{at}: without: {method.name} needs no teacher: it belongs to the "
                        "student, not to a pair"
                    )
                continue
            recipe, levels = own.checked(known.train_images), [sheet.settings]
            if taught:
                levels.append(pair.settings)
                resolved = resolve_method(method, _merge(*levels))
            spec = RunSpec(
                dataset=sheet.dataset,
                network=pair.student,
                teacher=teachers[pair.teacher].spec if taught else None,
                method=resolved,
                recipe=recipe,
                seed=sheet.seeds[0],
            )
            if reason := fit_problem(spec, known):
                raise StudyError(
                    f"{at}: {method.name}: {reason}; to leave the method out, give the pair "
                    f"'without: [{method.name}]'"
                )
            written = explicit_settings(method, *levels)
            if idle := ineffective_default(resolved, recipe, written) or ineffective_group(
                resolved, recipe
            ):
                raise StudyError(f"{at}: {method.name}: {idle}")
            cell = Cell(
                pair=f"{pair.teacher}--{pair.student}" if taught else pair.student,
                method=method.name,
                teacher=pair.teacher if taught else None,
                student=pair.student,
                spec=spec,
                runs={
                    seed: spec.model_copy(update={"seed": seed}).identity for seed in sheet.seeds
                },
                extra=extra_facts(spec, known),
                needs=tuple(sorted(teacher_needs(resolved))),
            )
            cells.setdefault(cell.key, cell)
            notes += [
                f"methods: {method.name}: {note}"
                for note in notes_on_long_settings(resolved, recipe)
            ]
    notes += notes_on_unused_settings(sheet.settings, [cell.spec.method for cell in cells.values()])
    used = [teachers[name] for name in dict.fromkeys(pair.teacher for pair in sheet.pairs)]
    networks = [*(node.spec.network for node in used), *(pair.student for pair in sheet.pairs)]
    specs = [cell.spec for cell in cells.values()]
    specs += [node.spec.run for node in used if node.spec.kind == "trained"]
    return Expansion(
        study=study,
        sources=sources,
        title=sheet.title,
        description=sheet.description,
        sheet=text,
        dataset=sheet.dataset,
        recipe=sheet.recipe,
        methods=tuple(method.name for method in sheet.methods),
        pairs=tuple((pair.teacher, pair.student) for pair in sheet.pairs),
        seeds=sheet.seeds,
        teachers=tuple(used),
        cells=tuple(cells.values()),
        images=ImageInfo(
            train_images=known.train_images,
            test_images=known.test_images,
            size=known.size,
            channels=CHANNELS,
            classes=known.num_classes,
            views=known.views,
        ),
        networks={name: network_facts(name, known) for name in dict.fromkeys(networks)},
        code=read_source_closure(
            {root for spec in specs for root in run_source_roots(spec, network_family)}
        ),
        notes=tuple(dict.fromkeys(notes)),
    )


def _image_facts(sheet: Sheet) -> DatasetFacts:
    """Return how many images there are to train on, and how large."""
    if (name := sheet.dataset.name) not in dataset_names():
        raise StudyError(f"dataset.name: unknown '{name}'{suggest(name, dataset_names())}")
    folder = sheet.dataset.folder
    if folder is not None and (problem := folder_problem(folder)):
        raise StudyError(f"dataset: folder: {problem}")
    try:
        return dataset_facts(sheet.dataset)
    except (DataError, BrokenFileError) as error:
        raise StudyError(f"dataset: {error}") from error


def _teacher(
    sheet: Sheet,
    name: str,
    entry: SheetTeacher,
    recipe: WrittenRecipe,
    images: int,
    hashes: Mapping[Path, str],
) -> TeacherNode:
    where = f"teachers.{name}"
    network = entry.network or name
    leaks = entry.import_ is not None and sheet.dataset.split == "validation"
    _check_network(f"{where}: network", network)
    spec: TeacherSpec
    if entry.train is not None:
        _check_seed(f"{where}.train", entry.train.seed)
        own = recipe.changed(entry.train.recipe, f"{where}.train.recipe")
        spec = TrainedTeacher(
            run=RunSpec(
                dataset=sheet.dataset,
                network=network,
                method=_alone(),
                recipe=own.checked(images),
                seed=entry.train.seed,
            )
        )
        origin = f"trained here, seed {entry.train.seed}"
    else:
        if leaks and not entry.import_.seen_validation:
            raise StudyError(
                f"{where}: with 'split: validation' teachers are trained, for an imported one has "
                "seen the validation images. To use it nevertheless, and have the report say so: "
                "seen_validation: true"
            )
        spec = ImportedTeacher(
            network=network,
            dataset=DatasetSpec(name=sheet.dataset.name, folder=sheet.dataset.folder),
            sha256=_sha256(entry.import_, hashes),
        )
        origin = entry.import_.url or f"imported from {entry.import_.file.name}"
    return TeacherNode(
        name=name, id=spec.identity, spec=spec, origin=origin, source=entry.import_, leaks=leaks
    )


def _sha256(source: ImportSource, hashes: Mapping[Path, str]) -> str:
    """Return what a file must hash to. One that is neither at hand nor pinned gets a stand-in.

    Nothing can be trained under the stand-in, for training needs the file; a dry run can.
    """
    if source.sha256 is not None:
        return source.sha256
    if source.file.is_file():
        return sha256_of(source.file)
    return hashes.get(source.file, f"not at hand: {source.file.name}")


def _alone() -> MethodSpec:
    return resolve_method(SheetMethod(name="student"), {})


def _merge(*levels: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return settings by term, later levels over earlier ones."""
    names = dict.fromkeys(name for level in levels for name in level)
    return {name: {k: v for lv in levels for k, v in lv.get(name, {}).items()} for name in names}


def _check_network(where: str, name: str) -> None:
    try:
        check_network(name)
    except SkdError as error:
        raise StudyError(f"{where}: {error}") from error


def _check_seed(where: str, seed: int) -> None:
    if problem := seed_problem(seed):
        raise StudyError(f"{where}: {problem}")
