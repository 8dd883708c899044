"""A tiny study, and the results folders of two machines."""

import hashlib
from pathlib import Path

import pytest

from skd.store.records import Collapse
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.study.expansion_files import write_expansion
from tests.builders import tiny
from tests.builders.records import make_card, make_record
from tests.builders.show_output import ENVIRONMENT, EXECUTION, WEIGHTS


@pytest.fixture(scope="module")
def study() -> Expansion:
    return tiny.study()


@pytest.fixture(autouse=True)
def beside_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKD_TEACHERS", raising=False)


@pytest.fixture
def theirs(tmp_path: Path) -> Store:
    return Store(tmp_path / "theirs")


@pytest.fixture
def ours(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def store(tmp_path: Path, study: Expansion, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a results folder that contains only the study's expansion."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKD_TEACHERS", raising=False)
    write_expansion(study, Path("results"))
    return Store(Path("results"))


@pytest.fixture
def done(study: Expansion, store: Store) -> StoreEntry:
    """Return a finished run of `skd` with its teacher's card and its weights, without logits."""
    cell, node = study.cell(tiny.PAIR, "skd"), study.teachers[0]
    entry = store.run(cell.runs[1])
    card = make_card(node.id)
    store.teacher(node.id).write(card)
    record = make_record(cell.run(1), entry.id)
    record = record.model_copy(
        update={
            "cost": record.cost.model_copy(update={"sessions": 2}),
            "environment": ENVIRONMENT,
            "execution": EXECUTION,
            "teacher": card,
            "collapse": Collapse(collapsed=True, reason="it lost the labels", first_epoch=1),
            "files": {
                "weights.safetensors": hashlib.sha256(WEIGHTS).hexdigest(),
                "test_logits.safetensors": "1" * 64,
            },
        }
    )
    entry.write(record)
    entry.weights_path.write_bytes(WEIGHTS)
    return entry
