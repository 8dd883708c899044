"""YAML is read as a person expects, and errors have no traceback."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skd.common.yaml_files import MAX_YAML_DEPTH, YamlError, read_yaml

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.fixture
def read(tmp_path: Path):
    def read_text(text: str | bytes) -> Any:
        path = tmp_path / "a.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path)

    return read_text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1:30", "1:30"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-3", -3),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("'true'", "true"),
        ("False", False),
        ("~", None),
        ("", None),
        ("1e-3", 1e-3),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("2024-01-01", "2024-01-01"),
        ("12345e67", "12345e67"),  # the head of a hash
        ("=", "="),
        ("[1, no, 0o7]", [1, "no", 7]),
    ],
)
def test_plain_values_are_what_they_look_like(read, written: str, value: Any) -> None:
    loaded = read(f"key: {written}\n")["key"]
    assert (loaded, type(loaded)) == (value, type(value))


def test_merge_keys_take_over_and_own_keys_win(read) -> None:
    data = read(
        "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, {x: 3, z: 3}], y: 4}\nd: *b\n"
    )
    assert data["b"] == data["d"] == {"x": 1, "y": 2}
    assert data["c"] == {"x": 1, "y": 4, "z": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "line 2, column 1: the key 'a' is written twice"),
        ("a: {<<: {}, <<: {}}\n", "the key '<<' is written twice"),
        ("a: {<<: 1}\n", "expected a mapping or list of mappings for merging"),
        ("a: [x\n", "line 2, column 1: while parsing a flow sequence"),
        ("1: a\n", "line 1, column 1: a key must be text: write '1' in quotes"),
        ("? [a]\n: b\n", "a key must be text, not a list or a mapping"),
        ('a: "\\ud800"\n', r"line 1, column 4: the escaped character U\+D800 is not printable"),
        ('a: "\\0"\n', r"U\+0000 is not printable"),
        ('a: "\\U00110000"\n', "an escape is not a character"),
        ("a: b\nc: \x00\n", r"line 2: the character U\+0000 is not allowed"),
        (b"a: \xe9\n", "not UTF-8 text, at byte 3"),
        ("a: b\n---\na: b\n", "expected a single document"),
        ("a: &a [*a]\n", "an alias within the node that it refers to"),
        ("a: &a {<<: *a}\n", "an alias within the node that it refers to"),
        ("a: *b\n", "found undefined alias 'b'"),
        (ALIASES, "more than 100000 values"),
        ("a: " + "[" * 1000, f"nested more than {MAX_YAML_DEPTH} deep"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 40)),
            "32 levels",
        ),
        ("a: !!int foo\n", "'foo' is not a valid int"),
        ("a: !!python/name:os.system x\n", "tags are not allowed"),
        ("a: !!binary x\n", "tags are not allowed"),
        (f"a: {'9' * 5000}\n", "an integer with more than 100 digits"),
        ("a" * 1_000_001, "more than 1000000 bytes"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_unusable_yaml_gives_one_line_that_names_the_place(read, text, words: str) -> None:
    with pytest.raises(YamlError, match=words) as refused:
        read(text)
    assert "\n" not in str(refused.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml", tmp_path / ("a" * 300)):
        with pytest.raises(YamlError, match=r"cannot be read: \w+"):
            read_yaml(path)


PIECES = ("a", "1", ": ", "- ", "? ", "[", "]", "{", "}", ", ", "\n", "  ", "&a ", "*a ", "<<: ")
PIECES += ("!!int ", "!!set ", "!x!y ", "'", '"', "\\ud83d", "\\x", "|\n", "---\n", "%YAML 1.1\n")
PIECES += ("\t", "#", "\0", "\ufeff", "é", "0x", ".inf", "%TAG ! tag:yaml.org,2002:\n")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_text_is_read_or_refused(read, text: str) -> None:
    refused = ""
    try:
        read(text)
    except YamlError as error:
        refused = str(error)
    assert "\n" not in refused
