"""The terms and transformations in ``baselines/``, by name."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import TypeVar

from torch import nn

from skd.common.errors import UnknownNameError
from skd.common.plugins import (
    BrokenFileError,
    load_modules,
    load_own_package,
    module_file,
    print_broken_files,
)
from skd.losses.term import RAW, Term
from skd.losses.transformation import Transformation

# A transformation is a part of the objective under its own name: names of the objective's parts and
# methods are not free, and neither is `raw`, which stands for logits without a transformation.
RESERVED_NAMES = frozenset(
    {
        RAW,
        *(name for name in dir(nn.Module()) if not name.startswith("_")),
        "after_step",
        "begin_epoch",
        "classifier",
        "graph_key",
        "parameter_groups",
        "partition_problem",
        "tensors_to_store",
        "terms",
        "transformations",
    }
)
Rule = type[Term] | type[Transformation]
Kind = TypeVar("Kind", type[Term], type[Transformation])


@cache
def _discover() -> tuple[dict[str, Rule], dict[str, str]]:
    """Return the classes of ``baselines/`` by name, and the reasons why files are left out."""
    files = [
        f"baselines.{module.name}"
        for module in pkgutil.iter_modules(load_own_package("baselines").__path__)
        if not module.name.startswith("_")
    ]
    loaded, broken = load_modules(files)
    classes = {}
    for name, module in loaded.items():
        found = _classes_of(module)
        if problem := _problem(name.split(".")[1], found):
            broken[name] = f"{module_file(name)}: {problem}"
        else:
            classes[name] = found[0]
    broken |= _with_shared_logits(classes)
    classes = {name: rule for name, rule in classes.items() if name not in broken}
    print_broken_files(broken.values())
    return tuple(
        {name.split(".")[1]: value for name, value in by_module.items()}
        for by_module in (classes, broken)
    )


def _classes_of(module: ModuleType) -> list[Rule]:
    return [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Term | Transformation) and value.__module__ == module.__name__
    ]


def _problem(name: str, classes: list[Rule]) -> str | None:
    """Return why a file of ``baselines/`` cannot be used; ``None`` if it can."""
    if len(classes) != 1:
        return (
            f"expected one subclass of Term or Transformation, found {len(classes)}; a helper "
            "file's name must start with an underscore"
        )
    if issubclass(classes[0], Transformation) and name in RESERVED_NAMES:
        return f"'{name}' cannot be the name of a transformation; rename the file"
    return None


def _with_shared_logits(classes: dict[str, Rule]) -> dict[str, str]:
    """Return the transformations whose logits have the name of another's, with the reason."""
    owners: dict[str, list[str]] = {}
    for module, rule in classes.items():
        if issubclass(rule, Transformation):
            logits = rule.logits_name or module.split(".")[1]
            owners.setdefault(logits, []).append(module)
    return {
        module: f"{module_file(module)}: 'teacher: {logits}' means the logits of "
        f"{' and of '.join(map(module_file, modules))}; rename one of the files, or its logits_name"
        for logits, modules in owners.items()
        if len(modules) > 1
        for module in modules
    }


def term_classes() -> dict[str, type[Term]]:
    """Return the terms of ``baselines/`` by name, without broken ones."""
    return {name: rule for name, rule in _discover()[0].items() if issubclass(rule, Term)}


def transformation_classes() -> dict[str, type[Transformation]]:
    """Return the transformations of ``baselines/`` by name, without broken ones."""
    rules = _discover()[0]
    return {name: rule for name, rule in rules.items() if issubclass(rule, Transformation)}


def transformations_by_logits() -> dict[str, str]:
    """Return the names of transformations by the values of a term's `teacher` that select them."""
    return {rule.logits_name or name: name for name, rule in transformation_classes().items()}


def logits_names() -> list[str]:
    """Return the allowed values of a term's setting `teacher`."""
    return [RAW, *transformations_by_logits()]


def broken_files() -> dict[str, str]:
    """Return the names of the files that cannot be imported or used, with the reasons.

    Each process prints the reasons once on stderr. A method with a broken file is an error.
    """
    return _discover()[1]


def term_class(name: str) -> type[Term]:
    """Return a term by name.

    Raises:
        BrokenFileError: the term's file cannot be used; says why.
        UnknownNameError: there is no such term; names the allowed ones.
    """
    return _lookup("term", name, term_classes())


def transformation_class(name: str) -> type[Transformation]:
    """Return a transformation by name; errors as for `term_class`."""
    return _lookup("transformation", name, transformation_classes())


def _lookup(kind: str, name: str, classes: dict[str, Kind]) -> Kind:
    if name in broken_files():
        raise BrokenFileError(broken_files()[name])
    if name not in classes:
        raise UnknownNameError(kind, name, classes)
    return classes[name]
