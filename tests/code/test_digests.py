"""The digest of a source file's code, and its imports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd.code.digests import imported_modules, source_digest
from tests.builders.paths import ROOT

PLAIN = """
def loss(a, b=1.0):
    return f"{a:>{b}} of {a!r}" + "text" + str(-2 * (a + b) ** 2)
"""
SAME = [
    "# a comment\n" + PLAIN,
    '"""What the module is for."""\n' + PLAIN,
    PLAIN.replace("1.0):", '1.0):\n    """What it returns."""'),
    PLAIN.replace("    return", "    'a string by itself'\n    return"),
    PLAIN.replace("a, b=1.0", "\n    a,\n    b = 1.0,\n"),
    PLAIN.replace('"text"', "'te' 'xt'"),
    PLAIN.replace("(a + b) ** 2", "((a + b) ** (2))"),
    PLAIN.replace("1.0", "1."),
    PLAIN.replace("\n", "\r\n"),
]
OTHER = [
    PLAIN.replace("-2", "2"),
    PLAIN.replace("-2", "-2.0"),
    PLAIN.replace("1.0", "1"),
    PLAIN.replace("text", "test"),
    PLAIN.replace("a, b", "b, a"),
    PLAIN.replace("!r", ""),
    PLAIN.replace("loss", "loss_of"),
    PLAIN + "\nloss = None\n",
    PLAIN.replace("def", "@cache\ndef"),
    PLAIN.replace("a, b=1.0", "a: int, b=1.0"),
    PLAIN.replace("b=1.0", "*, b=1.0"),
]
# Code that other versions of Python may compile differently.
TRICKY = (
    b'x = f"{a:>{b}}" f"{c}" "d" f"{e!s:}{{}}"\n'
    b"try:\n    y = (yield)\nexcept (A, B) as e:\n    pass\n"
    b"match x:\n    case [1, *rest] if rest: pass\n    case {'k': None, **kw}: pass\n"
    b"z = lambda *a, k=None, **b: (1e-3, 1_000, 0x10, b'\\x00', ..., 1j, '\xf0\x9f\xa9\xb7')\n"
    b"class A(B, metaclass=C):\n    x: int\n    async def f(self): [i async for i in a]\n"
)


def digest(text: str) -> str:
    return source_digest(text.encode())


@pytest.mark.parametrize("text", SAME)
def test_comments_docstrings_and_formatting_do_not_count(text: str) -> None:
    assert text != PLAIN
    assert digest(text) == digest(PLAIN)


@pytest.mark.parametrize("text", OTHER)
def test_what_is_computed_counts(text: str) -> None:
    assert text != PLAIN
    assert digest(text) != digest(PLAIN)


@given(st.one_of(st.integers(), st.floats(), st.text(), st.binary(), st.booleans(), st.none()))
def test_every_constant_counts_by_type_and_value(value: object) -> None:
    """Two constants share a digest only if they are written in the same way."""
    others = [0, 0.0, -0.0, "", b"", False, None, "0", 1, True]
    for other in others:
        same = digest(f"x = {value!r}\n") == digest(f"x = {other!r}\n")
        assert same == (repr(value) == repr(other))


def pythons() -> list[str]:
    """Return the installed other versions of Python that this project supports."""
    names = [f"python3.{minor}" for minor in range(11, 20)]
    paths = [path for name in names if (path := shutil.which(name))]
    paths += map(str, (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3"))
    paths += os.environ.get("SKD_PYTHONS", "").split()
    program = "import sys; print(sys.version_info[:2])"
    versions = {}
    for path in paths:
        done = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
        if done.returncode == 0 and eval(done.stdout) >= (3, 11):
            versions.setdefault(done.stdout, path)
    versions.pop(f"{sys.version_info[:2]}\n", None)
    return [*versions.values()]


def test_other_versions_of_python_have_the_same_digests(tmp_path: Path) -> None:
    others = pythons()
    if not others:
        pytest.skip("no other Python of 3.11 or newer here; name some in SKD_PYTHONS")
    (tmp_path / "tricky.py").write_bytes(TRICKY)
    files = [tmp_path / "tricky.py"]
    for package in ("skd", "baselines", "report", "benchmarks"):
        files += sorted((ROOT / package).rglob("*.py"))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from skd.code.digests import source_digest\n"
        "for name in sys.stdin.read().splitlines():\n"
        "    print(source_digest(open(name, 'rb').read()))\n"
    )
    mine = [source_digest(path.read_bytes()) for path in files]
    for python in others:
        done = subprocess.run(
            [python, "-c", program, str(ROOT)],
            input="\n".join(map(str, files)),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == mine, python


def test_a_digest_is_the_same_tomorrow() -> None:
    """Later code must read today's records: this value is part of their meaning."""
    assert source_digest(TRICKY) == "a31e67d4bbe8d7f8"


KNOWN = {"a", "a.b", "a.b.c", "a.d", "e"}


@pytest.mark.parametrize(
    ("text", "imported"),
    [
        ("import a.b.c as x", {"a", "a.b", "a.b.c"}),
        ("from a.b import c, other", {"a", "a.b", "a.b.c"}),
        ("from a import d", {"a", "a.d"}),
        ("import torch, e", {"e"}),
        ("from . import d", {"a", "a.d"}),
        ("from .b.c import x", {"a", "a.b", "a.b.c"}),
        ("def f():\n    from a.b import x", {"a", "a.b"}),
        ("if TYPE_CHECKING:\n    import e", set()),
        ("if typing.TYPE_CHECKING:\n    import e\nelse:\n    import a", {"a"}),
        ("if not TYPE_CHECKING:\n    import e", {"e"}),
        ("if fast:\n    import e", {"e"}),
        ("'import e'", set()),
    ],
)
def test_the_imports_of_a_module(text: str, imported: set) -> None:
    assert imported_modules(text.encode(), "a.m", False, KNOWN) == imported


def test_relative_imports_of_packages_and_of_what_is_deeper() -> None:
    assert imported_modules(b"from . import c", "a.b", True, KNOWN) == {"a", "a.b.c"}
    assert imported_modules(b"from ..d import x", "a.b.c", False, KNOWN) == {"a", "a.d"}
