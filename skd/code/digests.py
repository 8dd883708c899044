"""What a source file computes, as a digest, and which files it imports. The standard library alone.

The digest is of the file's syntax tree without comments, docstrings and formatting. It is the same
under every Python version from 3.11 on.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

DIGEST_LENGTH = 16
# Of a node: where it is read or written is said by its place; comments about types say nothing.
_SILENT = ("ctx", "kind", "type_comment", "type_ignores")


def source_digest(source: bytes) -> str:
    """Return a digest of what a Python file computes.

    Args:
        source: the file's content.

    Raises:
        SyntaxError: it is no Python.
    """
    text = json.dumps(_plain(ast.parse(source)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def imported_modules(source: bytes, module: str, is_package: bool, known: Collection[str]) -> set:
    """Return the modules among the known ones that a file imports, at its top or in its functions.

    Importing a module imports the packages around it, so these are among them. What is imported
    for type checkers alone is not.

    Args:
        source: the file's content.
        module: its dotted name, which relative imports start from.
        is_package: whether it is a package's ``__init__.py``.
        known: dotted names.

    Raises:
        SyntaxError: it is no Python.
    """
    package = module if is_package else module.rpartition(".")[0]
    found = set()
    for node in _executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(around if node.level else []), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found |= {".".join(parts[: n + 1]) for n in range(len(parts))} & set(known)
    return found - {module}


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree's nodes but for what only type checkers see."""
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from _executed(child)


def _plain(value: Any) -> Any:
    """Return a node, a list of nodes or a constant as data for JSON.

    Empty fields are left out: a later Python version may have fields that an earlier one lacks.
    """
    if isinstance(value, ast.JoinedStr):  # Python 3.12.0 and 3.12.1 add empty strings
        filled = [part for part in value.values if getattr(part, "value", None) != ""]
        return ["JoinedStr", [_plain(part) for part in filled]]
    if isinstance(value, ast.Constant):
        # `ascii`, since which characters `repr` shows depends on the version's Unicode tables.
        return [type(value.value).__name__, ascii(value.value)]
    if isinstance(value, ast.AST):
        fields = {
            name: _plain(field)
            for name, field in ast.iter_fields(value)
            if name not in _SILENT and field not in (None, [])
        }
        return [type(value).__name__, fields]
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_text_alone(item)]
    return value


def _is_text_alone(node: Any) -> bool:
    """Return whether a statement is a string by itself: a docstring, or a comment in its form."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
