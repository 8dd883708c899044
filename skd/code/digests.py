"""Digests of source files, and the modules that they import. Uses only the standard library.

A digest is computed from the syntax tree without comments, docstrings and formatting. It is the
same under every Python version from 3.11 on.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

DIGEST_LENGTH = 16
# Fields of nodes without a meaning of their own: the place of a node implies its ctx.
_IGNORED_FIELDS = ("ctx", "kind", "type_comment", "type_ignores")


def source_digest(source: bytes) -> str:
    """Return a digest of the code in a Python file.

    Args:
        source: the file's content.

    Raises:
        SyntaxError: the content is not valid Python.
    """
    text = json.dumps(_plain(ast.parse(source)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def imported_modules(source: bytes, module: str, is_package: bool, known: Collection[str]) -> set:
    """Return the known modules that a file imports, at its top level or in its functions.

    The packages that contain an imported module are included, because Python imports them too.
    Imports for type checkers only are excluded.

    Args:
        source: the file's content.
        module: its dotted name; relative imports start from it.
        is_package: whether the file is a package's ``__init__.py``.
        known: dotted names of the modules to look for.

    Raises:
        SyntaxError: the content is not valid Python.
    """
    package = module if is_package else module.rpartition(".")[0]
    imported = set()
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            imported |= {".".join(parts[: n + 1]) for n in range(len(parts))} & set(known)
    return imported - {module}


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, except those in ``if TYPE_CHECKING`` blocks."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from _executed(child)


def _plain(value: Any) -> Any:
    """Return a node, a list of nodes or a constant as data for JSON.

    Empty fields are left out, because later Python versions may add fields.
    """
    if isinstance(value, ast.JoinedStr):  # Python 3.12.0 and 3.12.1 add empty strings
        parts = [part for part in value.values if getattr(part, "value", None) != ""]
        return ["JoinedStr", [_plain(part) for part in parts]]
    if isinstance(value, ast.Constant):
        # `ascii`, because the output of `repr` depends on the Unicode tables of the version.
        return [type(value.value).__name__, ascii(value.value)]
    if isinstance(value, ast.AST):
        fields = {
            name: _plain(field)
            for name, field in ast.iter_fields(value)
            if name not in _IGNORED_FIELDS and field not in (None, [])
        }
        return [type(value).__name__, fields]
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_bare_string(item)]
    return value


def _is_bare_string(node: Any) -> bool:
    """Return whether a statement is only a string, such as a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
