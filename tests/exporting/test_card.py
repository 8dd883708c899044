"""The card of a network of another library: its commands and code can be copied."""

import ast
import re
import shlex

from skd.common.wrapped_networks import wrapped_name
from skd.exporting.card import ExportedFile, InputDescription, ModelCard, card_markdown
from skd.exporting.export import file_stem

NETWORK = wrapped_name("timm/x", ["a", "b"], {"act": "it's"})
CARD = ModelCard(
    id="1",
    kind="run",
    names=(),
    network=NETWORK,
    dataset={"name": "digits"},
    num_classes=10,
    parameters=1,
    input=InputDescription(size=8),
    last=None,
    best=None,
    method=None,
    teacher={"network": NETWORK, "id": "2"},
    recipe=None,
    seed=0,
    origin="trained here",
    weights_sha256="0",
    code={},
    software={},
    finished_at=None,
    files=(ExportedFile(name="timm-x.pth", format="pth", sha256="0"),),
)


def test_the_code_and_the_command_hold_the_networks_name() -> None:
    text = card_markdown(CARD)
    code = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)
    command = re.search(r"`(skd import-teacher .*?)`", text)
    assert code
    assert command
    constants = [n.value for n in ast.walk(ast.parse(code[1])) if isinstance(n, ast.Constant)]
    assert NETWORK in constants
    assert shlex.split(command[1])[3:5] == ["--network", NETWORK]


def test_users_read_the_short_name() -> None:
    text = card_markdown(CARD)
    assert text.startswith("# timm/x on digits\n")
    assert "| teacher | timm/x |" in text
    assert file_stem(NETWORK) == "timm-x"
