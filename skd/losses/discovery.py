"""The terms in ``baselines/``, by name."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache

from skd.common.errors import UnknownNameError
from skd.common.plugins import (
    BrokenFileError,
    load_module,
    load_modules,
    module_file,
    print_broken_files,
)
from skd.losses.term import Term


@cache
def _discover_terms() -> tuple[dict[str, type[Term]], dict[str, str]]:
    """Return the terms of ``baselines/`` by name, and the reasons why files are left out."""
    files = [
        f"baselines.{module.name}"
        for module in pkgutil.iter_modules(load_module("baselines").__path__)
        if not module.name.startswith("_")
    ]
    loaded, broken = load_modules(files)
    terms = {}
    for name, module in loaded.items():
        classes = [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if issubclass(value, Term) and value.__module__ == name
        ]
        if len(classes) == 1:
            terms[name] = classes[0]
        else:
            broken[name] = (
                f"{module_file(name)}: expected one subclass of Term, found {len(classes)}; a "
                "helper file's name must start with an underscore"
            )
    print_broken_files(broken.values())
    return tuple(
        {name.split(".")[1]: value for name, value in by_module.items()}
        for by_module in (terms, broken)
    )


def term_classes() -> dict[str, type[Term]]:
    """Return the terms of ``baselines/`` by name, without those in `broken_terms`."""
    return _discover_terms()[0]


def broken_terms() -> dict[str, str]:
    """Return the terms whose files cannot be imported or do not define one term, with the reasons.

    Each process prints the reasons once on stderr. A method with a broken term is an error.
    """
    return _discover_terms()[1]


def term_class(name: str) -> type[Term]:
    """Return a term by name.

    Raises:
        BrokenFileError: the term's file cannot be used; says why.
        UnknownNameError: there is no such term; names the allowed ones.
    """
    terms = term_classes()
    if name in broken_terms():
        raise BrokenFileError(broken_terms()[name])
    if name not in terms:
        raise UnknownNameError("term", name, terms)
    return terms[name]
