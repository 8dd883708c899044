"""Checks of a sheet's names and numbers that need the networks and data sets."""

from __future__ import annotations

from skd.common.errors import SkdError, suggest
from skd.common.plugins import BrokenFileError
from skd.data import dataset_facts, dataset_names
from skd.data.images import DataError, DatasetFacts
from skd.expansion.network_checks import pass_problem, size_problem, training_problem
from skd.models import check_network, network_names
from skd.study.limits import folder_problem, seed_problem
from skd.study.sheet import Sheet
from skd.study.sheet_files import StudyError


def sheet_dataset_facts(sheet: Sheet) -> DatasetFacts:
    """Return the number and size of a sheet's images, the training limit applied.

    Raises:
        StudyError: an unknown data set, or a folder that cannot be as the sheet describes it.
    """
    if (name := sheet.dataset.name) not in dataset_names():
        raise StudyError(f"dataset.name: unknown '{name}'{suggest(name, dataset_names())}")
    folder = sheet.dataset.folder
    if folder is not None and (problem := folder_problem(folder)):
        raise StudyError(f"dataset: folder: {problem}")
    try:
        return dataset_facts(sheet.dataset)
    except (DataError, BrokenFileError) as error:
        raise StudyError(f"dataset: {error}") from error


def check_network_at(where: str, name: str, dataset: DatasetFacts, is_trained: bool) -> None:
    """Check the network at a place of the sheet.

    Args:
        where: the place.
        name: the network.
        dataset: the images.
        is_trained: whether the study trains it. A network that only evaluates may have dropout.

    Raises:
        StudyError: an unknown network, one whose file cannot be imported, one that is made for
            images of another size, or one whose training would not repeat.
    """
    try:
        check_network(name)
    except SkdError as error:
        raise StudyError(f"{where}: {error}") from error
    problem = size_problem(name, dataset) or pass_problem(name, dataset)
    if problem is None and is_trained:
        problem = training_problem(name, dataset)
    if problem:
        raise StudyError(f"{where}: {problem}")


def check_own_networks(sheet: Sheet) -> None:
    """Check the networks of other libraries that a sheet describes, also those not in use.

    Raises:
        StudyError: a name that a network of this suite has, an unknown network, module or option,
            or a library that is not installed.
    """
    for name, entry in sheet.networks.items():
        if name in network_names():
            raise StudyError(
                f"networks: {name}: this suite has a network of that name; choose another name"
            )
        try:
            check_network(entry.network)
        except SkdError as error:
            raise StudyError(f"networks: {name}: {error}") from error


def check_seed(where: str, seed: int) -> None:
    """Check a seed at a place of the sheet.

    Raises:
        StudyError: the seed is too large.
    """
    if problem := seed_problem(seed):
        raise StudyError(f"{where}: {problem}")
