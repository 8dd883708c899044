"""Teacher views equal the live teacher's outputs, are complete or absent, and resumable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skd.common.errors import InterruptedRunError
from skd.data import load_dataset as load_images
from skd.data.views import PixelViews
from skd.store.store import Store, StoreEntry, StoreError
from skd.store.teacher_view_files import ViewsFile, stored_outputs
from skd.study.spec import DatasetSpec
from skd.training import stored_views
from skd.training.execution import choose_execution
from skd.training.resources import TeacherRequest
from skd.training.stored_views import TeacherViewsError, make_teacher_views, open_stored_output
from skd.training.teacher import RELEASE_EVERY, LiveTeacher, StoredOutput, StoredTeacher
from skd.training.teacher_setup import train_teacher
from skd.training.weights import TeacherError, load_teacher_network
from tests.builders import tiny

CPU = torch.device("cpu")
STUDY = tiny.study(methods=["student", "kd", "crd", "skd+crd", "reviewkd", "skd"])
DATASET = STUDY.dataset
IMAGES, VIEWS, CLASSES = 80, 25, 10


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> StoreEntry:
    node = STUDY.teachers[0]
    entry = Store(tmp_path_factory.mktemp("store")).teacher(node.id)
    train_teacher(node.spec, entry, tiny.options(), "teacher")
    return entry


@pytest.fixture
def bare(teacher: StoreEntry, tmp_path: Path) -> StoreEntry:
    """The teacher without any views."""
    entry = StoreEntry(tmp_path / teacher.id)
    entry.folder.mkdir()
    for path in (teacher.card_path, teacher.weights_path):
        (entry.folder / path.name).write_bytes(path.read_bytes())
    return entry


def make(entry: StoreEntry, outputs=("logits",), precision="float32", **options):
    return make_teacher_views(
        entry, DATASET, outputs, precision, choose_execution("cpu", 1), **options
    )


def opened(entry: StoreEntry, output: str = "logits", precision: str = "float32") -> StoredOutput:
    return open_stored_output(ViewsFile(entry, DATASET, output, precision), CPU)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
def test_every_stored_output_is_the_live_teachers(bare, precision, tolerance) -> None:
    cards = make(bare, ("logits", "pooled"), precision)
    images = load_images(DATASET)
    network = load_teacher_network(bare, CPU, CLASSES).network
    live, maker = LiveTeacher(network), PixelViews(images, CPU)
    stored = StoredTeacher(
        logits=opened(bare, "logits", precision), pooled=opened(bare, "pooled", precision)
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        indices = torch.randint(IMAGES, (64,), generator=generator)
        numbers = torch.randint(VIEWS, (64,), generator=generator)
        batch = maker.batch(indices, numbers)
        expected = live.outputs(batch, indices, numbers)
        outputs = stored.outputs(batch, indices, numbers)
        for name in ("logits", "pooled"):
            want, got = getattr(expected, name), getattr(outputs, name)
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
        assert outputs.stages == outputs.preactivations == ()
    for card in cards:
        assert card.shape == (IMAGES, VIEWS, CLASSES if card.output == "logits" else 64)
        assert 0 <= card.largest_difference <= 10 * tolerance
        assert card.teacher_sha256 == bare.card().sha256


def test_made_once_and_one_output_after_the_other(bare, monkeypatch) -> None:
    first = make(bare)[0]
    both = make(bare, ("logits", "pooled"))
    assert both[0] == first
    assert [card.output for card in both] == ["logits", "pooled"]
    monkeypatch.setattr(stored_views, "load_teacher_network", None)  # nothing is computed again
    assert make(bare, ("pooled", "logits")) == both[::-1]
    assert sorted(path.suffix for path in both_files(bare)) == [".json", ".json", ".npy", ".npy"]


def both_files(entry: StoreEntry) -> list[Path]:
    return [*ViewsFile(entry, DATASET, "logits", "float32").folder.iterdir()]


@pytest.mark.parametrize("stop", [1, 7, 31])
def test_stopped_or_killed_anywhere_it_ends_with_the_same_bytes(
    teacher, bare, tmp_path, monkeypatch, stop
) -> None:
    whole = StoreEntry(tmp_path / "whole" / teacher.id)
    whole.folder.mkdir(parents=True)
    for path in (teacher.card_path, teacher.weights_path):
        (whole.folder / path.name).write_bytes(path.read_bytes())
    expected = make(whole, ("logits", "pooled"))
    monkeypatch.setattr(stored_views, "SAVE_SECONDS", 0.0 if stop == 7 else 1e9)
    calls: list[int] = []

    def stopping() -> bool:
        calls.append(1)
        if len(calls) == stop and stop == 31:
            raise KeyboardInterrupt  # as a kill: nothing is saved at this point
        return len(calls) == stop

    with pytest.raises((InterruptedRunError, KeyboardInterrupt)):
        make(bare, ("logits", "pooled"), should_stop=stopping)
    assert ViewsFile(bare, DATASET, "logits", "float32").card() is None
    with pytest.raises(TeacherViewsError, match="is missing"):
        opened(bare)
    torn = ViewsFile(bare, DATASET, "logits", "float32").path.with_suffix(".partial")
    with torn.open("ab") as file:
        file.write(b"half a row")
    done: list[int] = []
    resumed = make(bare, ("logits", "pooled"), on_progress=lambda n, rows: done.append(n))
    if stop != 31:
        assert done[0] == 64 * (stop + 1)  # it resumed instead of starting again
    assert [card.sha256 for card in resumed] == [card.sha256 for card in expected]


def test_damage_and_other_teachers_are_noticed(bare) -> None:
    make(bare)
    file = ViewsFile(bare, DATASET, "logits", "float32")
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TeacherViewsError, match="damaged or of another teacher; remove its folder"):
        opened(bare)
    file.path.write_bytes(content)
    opened(bare)
    card = json.loads(file.card_path.read_text())
    file.card_path.write_text(json.dumps({**card, "teacher_sha256": "0" * 64}))
    with pytest.raises(TeacherViewsError, match="of another teacher"):
        opened(bare)
    file.card_path.write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        opened(bare)


def test_what_the_precision_cannot_hold_is_refused(bare, monkeypatch) -> None:
    class Loud(torch.nn.Module):
        def forward_features(self, images):
            outputs = load_teacher_network(bare, CPU, CLASSES).network.forward_features(images)
            return type(outputs)(outputs.logits * 1e6, (), (), outputs.pooled)

    class Loaded:
        network, card = Loud(), bare.card()

    monkeypatch.setattr(stored_views, "load_teacher_network", lambda *_: Loaded)
    with pytest.raises(
        TeacherViewsError, match="more than float16 can represent; store them with --precision"
    ):
        make(bare, precision="float16")
    make(bare, precision="float32")


def test_a_file_that_is_not_the_teachers_is_removed(bare, monkeypatch) -> None:
    monkeypatch.setattr(
        stored_views,
        "image_and_view_of_rows",
        lambda first, end, views, device: (
            torch.arange(first, end) // views,
            (torch.arange(first, end) + 1) % views,
        ),
    )
    with pytest.raises(TeacherViewsError, match="from the teacher and has been removed"):
        make(bare)
    assert not ViewsFile(bare, DATASET, "logits", "float32").path.exists()


def test_without_the_teacher_there_are_no_views(tmp_path) -> None:
    with pytest.raises(TeacherError, match="not in the store"):
        make(StoreEntry(tmp_path / "nobody"))


def test_which_outputs_are_stored() -> None:
    assert stored_outputs(["teacher_logits"]) == ("logits",)
    assert stored_outputs(["teacher_pooled"]) == ("pooled",)
    assert stored_outputs(["teacher_pooled", "teacher_logits"]) == ("logits", "pooled")
    assert stored_outputs(["teacher_logits", "teacher_features"]) is None


def test_other_images_other_files(bare) -> None:
    kinds = [DATASET, DatasetSpec(name="digits"), DatasetSpec(name="digits", split="validation")]
    assert len({ViewsFile(bare, kind, "logits", "float16").path for kind in kinds}) == 3


def choose(requested: str | None, method: str, teacher: StoreEntry, device: torch.device) -> str:
    run = STUDY.cell(tiny.PAIR, method).run(0)
    return TeacherRequest(run, teacher).choose(requested, device)


def test_a_run_takes_stored_views_where_they_are(bare) -> None:
    assert choose(None, "kd", bare, CPU) == "live"
    with pytest.raises(
        TeacherViewsError, match=r"lacks logits-float16.npy; make them first: skd teacher-views"
    ):
        choose("float16", "kd", bare, CPU)
    make(bare)
    assert choose(None, "kd", bare, CPU) == "float32"
    assert choose("live", "kd", bare, CPU) == "live"
    assert choose(None, "crd", bare, CPU) == "live"  # it reads pooled features
    assert choose(None, "skd+crd", bare, CPU) == "live"
    make(bare, ("pooled",))
    assert choose(None, "skd+crd", bare, CPU) == "float32"
    assert choose("float32", "reviewkd", bare, CPU) == "live"  # maps are not stored


@pytest.mark.parametrize("method", ["kd", "skd", "skd+crd", "skd+pesf", "srrl"])
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-4), ("float16", 5e-3)])
def test_runs_with_stored_views_are_those_with_a_live_teacher(
    tmp_path, method, precision, close
) -> None:
    expansion = tiny.study(
        methods=["student", method],
        recipe={"epochs": 1, "milestones": [], "learning_rate": 0.01},
    )
    live = tiny.run(expansion, tmp_path / "live", method)
    assert live.execution["teacher"] == "live"
    node = expansion.teachers[0]
    entry = Store(tmp_path / "stored").teacher(node.id)
    train_teacher(node.spec, entry, tiny.options(), "teacher")
    make_teacher_views(
        entry, expansion.dataset, ("logits", "pooled"), precision, choose_execution("cpu", 1)
    )
    stored = tiny.run(expansion, tmp_path / "stored", method)
    assert stored.execution["teacher"] == precision
    assert stored.id == live.id  # execution is not part of the identity
    for name, value in live.epochs[0].train_losses.items():
        assert stored.epochs[0].train_losses[name] == pytest.approx(value, rel=close, abs=1e-6)


def test_a_run_resumes_with_the_execution_it_was_started_with(tmp_path) -> None:
    expansion = tiny.study(methods=["student", "kd"])
    node = expansion.teachers[0]
    entry = Store(tmp_path).teacher(node.id)
    train_teacher(node.spec, entry, tiny.options(), "teacher")
    with pytest.raises(InterruptedRunError):
        tiny.run(expansion, tmp_path, "kd", should_stop=lambda: True)
    make_teacher_views(entry, expansion.dataset, ("logits",), "float16", choose_execution("cpu", 1))
    assert tiny.run(expansion, tmp_path, "kd").execution["teacher"] == "live"
    assert tiny.run(expansion, tmp_path, "kd", seed=1).execution["teacher"] == "float16"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_on_a_cpu_the_file_is_mapped_and_read_pages_are_released(bare) -> None:
    make(bare)
    path = ViewsFile(bare, DATASET, "logits", "float32").path
    stored, values = opened(bare), torch.from_numpy(np.load(path))
    every = torch.arange(IMAGES)

    def resident() -> int:
        """Return the file's bytes in this process's memory."""
        maps = Path("/proc/self/smaps").read_text().split(str(path))[1]
        return 1024 * int(maps.partition("Rss:")[2].split()[0])

    for number in range(1, RELEASE_EVERY):
        rows = stored.rows(every, torch.full_like(every, number % VIEWS))
        assert torch.equal(rows, values[every, number % VIEWS])
    assert resident() >= path.stat().st_size - 4096  # all of it was looked up
    stored.rows(every[:1], every[:1])  # now its memory is released
    assert resident() < path.stat().st_size
    assert torch.equal(stored.rows(every, 0 * every), values[:, 0])  # and found again


def test_a_full_disk_is_reported_before_any_work(bare, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TeacherViewsError, match=r"room for 0.0 GB, and the views need 0.0 GB more"):
        make(bare)


def test_data_that_would_fill_half_a_gpu_are_loaded_only_on_request(bare, monkeypatch) -> None:
    make(bare)
    memory = SimpleNamespace(total_memory=2 * IMAGES * VIEWS * CLASSES * 4 - 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)
    gpu = torch.device("cuda")
    assert choose(None, "kd", bare, gpu) == "live"
    assert choose("float32", "kd", bare, gpu) == "float32"
    memory.total_memory *= 2
    assert choose(None, "kd", bare, gpu) == "float32"
