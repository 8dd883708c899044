"""Reading YAML by the core schema of YAML 1.2. Imports no torch.

PyYAML reads YAML 1.1, in which ``1:30`` is 90, ``010`` is 8, ``yes`` is true and ``1e-3`` is text.
It also accepts duplicate keys and keeps the last one silently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import Reader, ReaderError

from skd.common.errors import SkdError

MAX_BYTES = 1_000_000
MAX_YAML_DEPTH = 32  # nested lists and mappings; a study sheet needs about 6
MAX_VALUES = 100_000  # an alias counts each time it is used
MAX_INTEGER_LENGTH = 100  # characters

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT = (f"{_TAG}{name}" for name in ("null", "bool", "int", "float"))
_STR, _MERGE = f"{_TAG}str", f"{_TAG}merge"
# The core schema, and the merge key of YAML 1.1. The order of the patterns matters.
_PLAIN = {
    _NULL: r"~|null|Null|NULL|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _INT: r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    # Digits, "e", digits stay text, for they may be a hash; numeric settings accept "1e5" as text.
    _FLOAT: r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+][0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    _MERGE: r"<<",
}


class YamlError(SkdError, ValueError):
    """A file cannot be used as YAML. The message is one line and names the place."""


def read_yaml(path: Path) -> Any:
    """Return a file's content: mappings with text keys, lists, text, numbers, booleans, ``None``.

    Raises:
        YamlError: the file cannot be read, is not UTF-8 or not YAML; or it has a duplicate key, a
            key that is not text, a tag, an unprintable character, an alias to a node that contains
            the alias, or too many or too deeply nested values.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise YamlError(f"has more than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise YamlError(f"not valid YAML: not UTF-8 text, at byte {error.start}") from error
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        message = ": ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"not valid YAML: {where}{' '.join(message.split())}") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(
            f"not valid YAML: line {line}: the character U+{error.character:04X} is not allowed"
        ) from error
    except (ValueError, OverflowError) as error:  # PyYAML raises these for escapes beyond Unicode
        raise YamlError(f"not valid YAML: an escape is not a character ({error})") from error


def _error(message: str, node: Node) -> ConstructorError:
    return ConstructorError(None, None, message, node.start_mark)


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2, with merge keys; ambiguous content is refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  as PyYAML declares it
    yaml_constructors: dict[str | None, Any] = {}  # noqa: RUF012

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        # Number of values and of levels in each complete node, by its id().
        self._extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            raise ConstructorError(
                None, None, f"nested more than {MAX_YAML_DEPTH} deep", self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        if id(node) not in self._extents:
            self._check(node)
            self._extents[id(node)] = self._extent(node)
        return node

    def _check(self, node: Node) -> None:
        """Refuse a node that `read_yaml` does not allow, without looking at nodes in it."""
        if isinstance(node.value, list) and node.end_mark is None:  # it is still being composed
            raise _error("an alias within the node that it refers to", node)
        if node.tag not in self.yaml_constructors and node.tag != _MERGE:
            raise _error(f"tags are not allowed: {node.tag}", node)
        if isinstance(node, ScalarNode) and (bad := Reader.NON_PRINTABLE.search(node.value)):
            raise _error(f"the escaped character U+{ord(bad[0]):04X} is not printable", node)
        if isinstance(node, MappingNode):
            self._check_keys([key for key, _ in node.value])

    def _check_keys(self, keys: list[Node]) -> None:
        names = set()
        for key in keys:
            if not isinstance(key, ScalarNode):
                raise _error("a key must be text, not a list or a mapping", key)
            if key.tag not in (_STR, _MERGE):
                raise _error(f"a key must be text: write '{key.value}' in quotes", key)
            if key.value in names:
                raise _error(f"the key '{key.value}' is written twice", key)
            names.add(key.value)

    def _extent(self, node: Node) -> tuple[int, int]:
        """Return the number of values and of levels in a node, aliases followed."""
        if isinstance(node, ScalarNode):
            return 1, 1
        parts = node.value
        if isinstance(node, MappingNode):
            parts = [part for pair in node.value for part in pair]
        extents = [self._extents[id(part)] for part in parts]
        values = 1 + sum(values for values, _ in extents)
        levels = 1 + max((levels for _, levels in extents), default=0)
        if values > MAX_VALUES or levels > MAX_YAML_DEPTH:
            raise _error(
                f"more than {MAX_VALUES} values or {MAX_YAML_DEPTH} levels, aliases included", node
            )
        return values, levels

    def _scalar(self, node: Node) -> Any:
        """Return a null, a boolean or a number; an explicit tag may not fit the text."""
        text = self.construct_scalar(node)
        if not re.fullmatch(_PLAIN[node.tag], text):
            raise _error(f"'{text}' is not a valid {node.tag.removeprefix(_TAG)}", node)
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        if node.tag == _FLOAT:
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if len(text) > MAX_INTEGER_LENGTH:
            raise _error(f"an integer with more than {MAX_INTEGER_LENGTH} digits", node)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for _tag, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)
for _tag in (_NULL, _BOOL, _INT, _FLOAT):
    _Loader.add_constructor(_tag, _Loader._scalar)
_Loader.add_constructor(_STR, yaml.SafeLoader.construct_yaml_str)
_Loader.add_constructor(f"{_TAG}seq", yaml.SafeLoader.construct_yaml_seq)
_Loader.add_constructor(f"{_TAG}map", yaml.SafeLoader.construct_yaml_map)
