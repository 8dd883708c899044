"""Results of two machines, as input of `skd merge`."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skd.store.records import Record
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Cell, Expansion
from tests.builders.commands import Skd
from tests.builders.records import card_of, make_record

CONTENT = b"weights of one machine"
TEACHER_WEIGHTS = b"weights of the teacher"
WEIGHTS, LOGITS = "weights.safetensors", "test_logits.safetensors"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(entry: StoreEntry, record: Record, content: bytes | None = CONTENT) -> Record:
    """Write a record; also its weights and logits unless there is no content."""
    files = {name: sha256((content or CONTENT) + name.encode()) for name in (WEIGHTS, LOGITS)}
    record = record.model_copy(update={"files": files})
    entry.folder.mkdir(parents=True, exist_ok=True)
    for name in files if content else ():
        (entry.folder / name).write_bytes(content + name.encode())
    entry.write(record)
    return record


def put_run(store: Store, cell: Cell, seed: int = 0, **changes: Any) -> StoreEntry:
    entry = store.run(cell.runs[seed])
    content = changes.pop("content", CONTENT)
    put(entry, make_record(cell.run(seed), entry.id, **changes), content)
    return entry


def put_teacher(store: Store, study: Expansion, top1: float = 90.0, **changes: Any) -> StoreEntry:
    """Write a trained teacher: its record and its card."""
    node = study.teachers[0]
    entry = store.teacher(node.id)
    content = changes.pop("content", TEACHER_WEIGHTS)
    record = put(entry, make_record(node.spec.run, node.id, top1), content)
    entry.write(card_of(record))
    return entry


def files_under(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# Conflicts.


def conflict(skd: Skd, *arguments: str) -> tuple[str, str]:
    before = files_under(Path("results"))
    status, out, err = skd("merge", "theirs", *arguments)
    assert status == 2
    assert err.startswith("skd: nothing is merged: ")
    assert err.count("\n") == 1
    assert files_under(Path("results")) == before
    return out, err
