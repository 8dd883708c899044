"""From a sheet to an expansion: the step that knows networks, terms and data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from skd.code.closure import SourceFile, read_source_closure
from skd.data.images import CHANNELS, DatasetFacts
from skd.expansion.dry_run import network_profile
from skd.expansion.method_teachers import MethodTeachers
from skd.expansion.sheet_cells import CellResolver
from skd.expansion.sheet_checks import check_own_networks, check_seed, sheet_dataset_facts
from skd.expansion.sheet_teachers import resolve_teachers
from skd.expansion.teacher_training import check_circular_partners
from skd.models import network_family
from skd.study.code_roots import run_source_roots
from skd.study.expansion import Cell, Expansion, ImageInfo, TeacherNode
from skd.study.expansion_files import expansion_sources_digest, known_checkpoint_hashes
from skd.study.sheet import Sheet, network_in_specs, read_sheet
from skd.study.sheet_files import StudyError, find_sheet, sheet_text
from skd.study.sheet_recipes import WrittenRecipe


def expand_study(name: str, results: Path = Path("results")) -> Expansion:
    """Resolve a study to specs.

    Args:
        name: name or path of its sheet.
        results: the results folder; an earlier expansion in it has the hashes of checkpoints
            whose files are missing now.

    Raises:
        StudyError: the sheet is invalid; names the place in it and the allowed values.
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
        study: the study's name.
        text: the sheet as written, for the report.
        sources: digest of everything that the result depends on.
        hashes: SHA-256 of checkpoints whose files may be missing, by path.

    Raises:
        StudyError: an unknown data set, network, method, term or setting, or a method that cannot
            work on a pair.
    """
    dataset = sheet_dataset_facts(sheet)
    check_own_networks(sheet)
    for seed in sheet.seeds:
        check_seed("seeds", seed)
    recipe = WrittenRecipe.from_study(sheet.recipe)
    declared = resolve_teachers(sheet, recipe, dataset, hashes or {})
    teachers = MethodTeachers(sheet, recipe, dataset, declared)
    resolver = CellResolver(sheet, dataset, recipe, teachers)
    resolver.resolve()
    cells = tuple(resolver.cells.values())
    nodes = {**declared, **teachers.added}
    check_circular_partners(nodes.values())
    of_cells = (cell.teacher for cell in cells if cell.teacher)
    used = [nodes[name] for name in dict.fromkeys([*(p.teacher for p in sheet.pairs), *of_cells])]
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
        cells=cells,
        images=_image_info(dataset),
        networks={
            name: network_profile(network, dataset)
            for name, network in _networks(sheet, used).items()
        },
        code=_source_files(cells, used),
        notes=tuple(dict.fromkeys(resolver.notes)),
        display=sheet.display,
        tables=sheet.tables,
        figures=sheet.shown_figures,
    )


def _networks(sheet: Sheet, teachers: Sequence[TeacherNode]) -> dict[str, str]:
    """Return the networks of a study as specs name them, by all their names."""
    networks = {}
    for teacher in teachers:
        networks[teacher.spec.network] = teacher.spec.network
    # The report knows students by their names in the sheet.
    for pair in sheet.pairs:
        in_specs = network_in_specs(sheet, pair.student)
        networks |= {in_specs: in_specs, pair.student: in_specs}
    return networks | {node.partner: node.partner for node in teachers if node.partner}


def _image_info(dataset: DatasetFacts) -> ImageInfo:
    return ImageInfo(
        train_images=dataset.train_images,
        test_images=dataset.test_images,
        size=dataset.size,
        channels=CHANNELS,
        classes=dataset.num_classes,
        views=dataset.views,
    )


def _source_files(cells: Iterable[Cell], teachers: Iterable[TeacherNode]) -> dict[str, SourceFile]:
    """Return the source files that the numbers of a study's runs depend on, by path."""
    specs = [cell.spec for cell in cells]
    specs += [node.spec.run for node in teachers if node.spec.kind == "trained"]
    roots = {root for spec in specs for root in run_source_roots(spec, network_family)}
    return read_source_closure(roots)
