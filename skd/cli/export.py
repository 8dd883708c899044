"""The command `skd export`. Torch is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skd.cli.options import DEFAULT_RESULTS, ResultsOption
from skd.cli.results_folder import require_results
from skd.common.errors import SkdError
from skd.common.extras import require_extra
from skd.common.files import check_writable_folder
from skd.provenance.details import EntryDetails, collect_details, entries_of
from skd.provenance.lookup import ExpandedStudies, find_identity
from skd.store.records import TeacherCard
from skd.store.store import Store
from skd.study.spec import FOLDER_DATASET, DatasetSpec, ImportedTeacher

if TYPE_CHECKING:
    from skd.exporting.export import Source


class NotFinishedError(SkdError):
    """A run or teacher has no result yet. The message says what to do."""


def export(
    run: Annotated[
        str,
        typer.Argument(
            help="an identity or its first characters, STUDY/PAIR/METHOD/SEED, or STUDY/TEACHER"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="folder for the files (default: RESULTS/exports/NETWORK-IDENTITY)"),
    ] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="also write an ONNX file, for batches of any size (extra: onnx)"
        ),
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Write a finished student, or a teacher, as files for other programs, with a model card.

    The weights are a .pth file with the keys of RepDistiller and mdistiller; skd import-teacher
    reads it, too. The model card, as Markdown and JSON, says how the network was trained, what its
    accuracy is and how to load it.
    """
    if onnx:
        require_extra("onnx", "--onnx")
    source = find_source(run, results)
    from skd.exporting.export import export as write_export
    from skd.exporting.export import file_stem

    folder = output or results / "exports" / f"{file_stem(source.spec.network)}-{source.entry.id}"
    check_writable_folder(folder)
    card = write_export(source, folder, onnx)
    accuracy = f"top-1 {card.last.top1:.2f} %" if card.last else "no accuracy recorded"
    print(f"{card.network}: {accuracy}, {card.kind} {card.id}")
    for name in (*(file.name for file in card.files), "model_card.md", "model_card.json"):
        print(folder / name)


def find_source(run: str, results: Path) -> Source:
    """Return a finished run or a teacher of a results folder.

    Args:
        run: an identity, its first characters, or an address in a study.
        results: the results folder.

    Raises:
        FindError: no run or teacher matches, or several do.
        NotFinishedError: it has no result yet.
        ResultsError: the results folder does not exist or has no results.
    """
    require_results(results)
    store, studies = Store(results), ExpandedStudies.read(results)
    identity = find_identity(run, store, studies)
    entries = [
        collect_details(kind, entry, store, studies, results, verify=False)
        for kind, entry in entries_of(identity, store, studies)
    ]
    return _source(run, entries)


def _source(run: str, entries: list[EntryDetails]) -> Source:
    """Return the finished entry of an identity: the run's if it has a record, else the teacher's.

    Raises:
        NotFinishedError: none is finished.
    """
    from skd.exporting.export import Source

    for details in sorted(entries, key=lambda each: each.kind):  # run, then teacher
        finished = details.card if details.kind == "teacher" else details.record
        spec = details.spec or _spec_of(details.card)
        if finished is None or spec is None:
            continue
        names = tuple(place.label for place in details.occurrences)
        return Source(details.kind, details.entry, spec, details.record, details.card, names)
    states = ", ".join(f"{details.kind} {details.state}" for details in entries)
    raise NotFinishedError(
        f"{run} has no result ({states or 'not in the store'}); train it first: skd "
        "train, or skd teacher"
    )


def _spec_of(card: TeacherCard | None) -> ImportedTeacher | None:
    """Return what the card of an imported teacher says; ``None`` if its data set needs a sheet."""
    if card is None or card.source_sha256 is None or card.dataset == FOLDER_DATASET:
        return None
    dataset = DatasetSpec(name=card.dataset)
    return ImportedTeacher(network=card.network, dataset=dataset, sha256=card.source_sha256)
