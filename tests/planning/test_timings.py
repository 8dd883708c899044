"""Timings from the store's records, and their cache."""

import json

import pytest

from skd.common.frozen import canonical
from skd.planning.timings import load_timings
from skd.store.records import Accuracy, Record
from skd.store.store import Store
from tests.builders.planned_studies import study
from tests.builders.records import make_cost, make_epoch, make_record


def record(cell, seed: int, **environment) -> Record:
    epochs = cell.spec.recipe.epochs
    device = "cuda" if environment.get("gpu") else "cpu"
    return make_record(
        cell.run(seed),
        cell.runs[seed],
        environment={"gpu": None, "cpu": "AMD EPYC", **environment},
        execution={"device": device, "threads": 2, "sessions": ["torch"]},
        epochs=tuple(
            make_epoch(epoch, seconds=6.0, images_per_second=10_000.0)
            for epoch in range(1, epochs + 1)
        ),
        best=Accuracy(epoch=1, top1=70.0, top5=90.0),
        cost=make_cost(
            train_seconds=6.0,
            seconds_per_epoch=6.0,
            images_per_second=10_000.0,
            peak_memory_bytes=10**9,
        ),
    )


@pytest.fixture
def store(tmp_path):
    expansion, store = study(), Store(tmp_path)
    alone, taught = expansion.cells[:2]
    store.run(alone.runs[0]).write(record(alone, 0))
    store.run(taught.runs[0]).write(record(taught, 0, gpu="NVIDIA A100"))
    node = expansion.teachers[0]
    entry = store.teacher(node.id)
    entry.write(record(alone, 1).model_copy(update={"id": node.id, "spec": node.spec.run}))
    return store


def test_records_contain_their_execution_and_time(store) -> None:
    expansion, measured = study(), load_timings(store)
    alone, taught = expansion.cells[:2]
    (row,) = measured.matching(alone.spec, "AMD EPYC, 2 threads")
    assert (row.kind, row.threads, row.sessions) == ("cpu", 2, 1)
    assert row.seconds_per_step == pytest.approx(64 / 10_000)
    (row,) = measured.matching(taught.spec, "NVIDIA A100")
    assert (row.kind, row.teacher, row.peak_memory_bytes) == ("gpu", "resnet56", 10**9)
    assert measured.matching(expansion.teachers[0].spec.run, "AMD EPYC, 2 threads")
    assert measured.devices() == {"AMD EPYC, 2 threads": 2, "NVIDIA A100": 1}
    assert measured.devices("digits") == {}
    assert measured.threads("NVIDIA A100") is None


def test_the_cache_spares_the_reading(store, monkeypatch) -> None:
    first = load_timings(store)
    read = []
    monkeypatch.setattr("skd.planning.timings._read_record", read.append)
    assert load_timings(store).rows == first.rows
    assert not read


def test_new_runs_come_in_and_vanished_ones_go(store) -> None:
    load_timings(store)
    alone = study().cells[0]
    store.run(alone.runs[0]).record_path.unlink()
    store.run(alone.runs[2]).write(record(alone, 2))
    keys = set(load_timings(store).rows)
    assert f"runs/{alone.runs[2]}" in keys
    assert f"runs/{alone.runs[0]}" not in keys
    assert set(json.loads((store.root / "timings.json").read_text())["rows"]) == keys


def test_execution_is_read_also_from_older_records_that_lack_parts_of_it(store) -> None:
    cell = study().cells[0]
    stored = record(cell, 2)
    execution = {"step": "fast", "precision": "bfloat16", "compiled": True, "kernels": "a table"}
    store.run(cell.runs[2]).write(
        stored.model_copy(update={"execution": {**stored.execution, **execution}})
    )
    rows = load_timings(store).rows
    assert rows[f"runs/{cell.runs[2]}"].execution_key == ("fast", "bfloat16", True, "a table")
    assert rows[f"runs/{cell.runs[0]}"].execution_key == ("plain", "float32", False, None)
    assert rows[f"runs/{cell.runs[2]}"].finished_at == stored.finished_at


def test_damage_is_passed_over(store) -> None:
    whole = load_timings(store).rows
    for name, text in {"a": "{", "b": "[]", "c": '{"spec": {}}', "d": "\x00\xff"}.items():
        entry = store.run(name)
        entry.folder.mkdir(parents=True)
        entry.record_path.write_text(text)
    for text in ("", "[]", '{"format": 0}', '{"format": 1, "rows": {"runs/x": {"network": 1}}}'):
        (store.root / "timings.json").write_text(text)
        assert load_timings(store).rows == whole


def test_an_empty_store_leaves_no_cache(tmp_path) -> None:
    assert load_timings(Store(tmp_path)).rows == {}
    assert not [*tmp_path.iterdir()]


def test_a_stored_method_is_found_again(store) -> None:
    cell = study().cells[1]
    stored = json.loads(store.run(cell.runs[0]).record_path.read_text())["spec"]["method"]
    assert stored == canonical(cell.spec.method)
