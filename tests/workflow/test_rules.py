"""Rules quote what they hand to a shell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.builders.paths import ROOT


def test_rules_quote_whatever_they_hand_to_a_shell() -> None:
    rules = ROOT / "workflow" / "rules"
    for path in sorted(rules.glob("*.smk")):
        for unquoted in re.findall(r"\{wildcards\.(?!digest)[^}:]+\}", "\n".join(shells(path))):
            pytest.fail(f"{path.name}: {unquoted} is not quoted")


def shells(path: Path) -> list[str]:
    """Return the shell commands of a file of rules."""
    return re.findall(r"shell:\n((?:\s+\"[^\n]*\n)+)", path.read_text())
