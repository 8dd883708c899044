"""The examples of docs/library.md, as they are written."""

import re

import pytest
import torch

from tests.builders.paths import ROOT

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=["torchvision", "crd-reviewkd"])
def test_an_example_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    exec(compile(code, "docs/library.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_first_example_is_short() -> None:
    assert len(EXAMPLES[0].splitlines()) <= 26
