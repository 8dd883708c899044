"""Finished runs whose code has changed: they are reported, trained again, or accepted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skd.code import accepted
from skd.common.files import sha256_of
from skd.provenance.change_groups import group_by_changes, group_by_kind
from skd.store.stale import FinishedRun, finished_runs, stale_lines
from skd.store.store import Store, StoreEntry
from skd.study.expansion import Expansion
from skd.study.expansion_files import load_expansion
from tests.builders.commands import Skd
from tests.builders.paths import ROOT

SHEET = """
title: small
dataset: {name: digits, train_limit: 80}
recipe: {epochs: 2, milestones: []}
teachers: {good: {network: resnet8, train: {seed: 7}}}
pairs: [{teacher: good, student: resnet8}]
methods: [student, kd, skd]
seeds: 2
"""
TRAIN = ("train", "small", "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sheet `small` and its finished runs."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(SHEET)
    command = [sys.executable, "-m", "skd", "train", "small.yaml", "--threads", "1"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([*command, "--device", "cpu"], cwd=folder, env=environment, check=True)
    return folder


@pytest.fixture
def small(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the finished study as the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SKD_STUDIES", str(tmp_path))
    monkeypatch.setattr(accepted, "ACCEPTED", tmp_path / "accepted.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expansion_here() -> Expansion:
    return load_expansion("small", Path("results"))


def entry_of(key: str, seed: int) -> StoreEntry:
    return Store(Path("results")).run(expansion_here().cell_by_key(key).runs[seed])


def say_other_code(entry: StoreEntry, path: str, digest: str = "0123456789abcdef") -> None:
    """Change a record as if its training had used another version of a file."""
    data = json.loads(entry.record_path.read_text())
    assert path in data["code"]
    data["code"][path] = digest
    entry.record_path.write_text(json.dumps(data))


def test_a_finished_study_is_todays(small: Path, skd: Skd) -> None:
    runs = finished_runs(expansion_here(), Store(Path("results")))
    assert len(runs) == 7  # six runs and a teacher
    assert not any(run.stale or run.changed is None for run in runs)
    assert "code" not in skd("status", "small")[1]
    assert skd("accept", "small")[1].startswith("no finished run of small")


def test_status_and_train_name_the_files(small: Path, skd: Skd) -> None:
    say_other_code(entry_of("good--resnet8/kd", 1), "baselines/kd.py")
    message = "1 finished run was trained by a different version of the code (baselines/kd.py)"
    assert message in skd("status", "small")[1]
    status, _, err = skd(*TRAIN)
    assert status == 0
    assert message in err
    assert "skd train small --stale" in err
    assert "skd accept small" in err
    assert entry_of("good--resnet8/kd", 1).is_finished()  # nothing is trained without a request


def test_old_records_have_unknown_code(small: Path, skd: Skd) -> None:
    entry = entry_of("good--resnet8/kd", 0)
    data = json.loads(entry.record_path.read_text())
    del data["code"]
    entry.record_path.write_text(json.dumps(data))
    assert "1 finished run does not say which code trained it: code unknown" in " ".join(
        skd("status", "small")[1].split()
    )
    skd("train", "small", "--threads", 1, "--stale")
    assert not (entry.folder / "superseded").exists()


def test_stale_runs_are_trained_again_and_the_others_left(small: Path, skd: Skd) -> None:
    stale, other = entry_of("good--resnet8/kd", 1), entry_of("good--resnet8/kd", 0)
    before, other_record = stale.record(), other.record_path.read_bytes()
    say_other_code(stale, "baselines/kd.py")
    status, out, _ = skd(*TRAIN, "--stale")
    assert status == 0
    assert "good--resnet8/kd seed 1: restarted from the beginning" in out
    assert stale.record().files == before.files  # the code is in fact the same
    assert stale.record().code == before.code
    assert other.record_path.read_bytes() == other_record
    (old,) = (stale.folder / "superseded").iterdir()
    record = json.loads((old / "record.json").read_text())
    assert record["code"]["baselines/kd.py"] == "0123456789abcdef"
    for name, sha256 in record["files"].items():
        assert sha256_of(old / name) == sha256
    assert "different version of the code" not in skd("status", "small")[1]


def test_what_cannot_be_trained_here_is_not_started_again(small: Path, skd: Skd) -> None:
    entry = entry_of("good--resnet8/kd", 1)
    say_other_code(entry, "baselines/kd.py")
    status, _, err = skd("train", "small", "--device", "tpu", "--stale")
    assert status == 2
    assert "unknown device 'tpu'" in err
    assert entry.is_finished()


def test_only_what_is_requested_is_trained_again(small: Path, skd: Skd) -> None:
    for seed in (0, 1):
        say_other_code(entry_of("good--resnet8/kd", seed), "baselines/kd.py")
        say_other_code(entry_of("good--resnet8/skd", seed), "baselines/simplifier.py")
    options = ("--seed", 1, "--threads", 1, "--stale")
    _, out, _ = skd("train", "small", "good--resnet8", "kd", *options)
    restarted = [line for line in out.splitlines() if "restarted" in line]
    assert restarted == ["good--resnet8/kd seed 1: restarted from the beginning"]


def test_a_stale_teacher_is_trained_again_and_its_students_are_checked(
    small: Path, skd: Skd
) -> None:
    teacher = Store(Path("results")).teacher(expansion_here().teacher("good").id)
    say_other_code(teacher, "skd/models/resnet.py")
    assert skd("teacher", "small", "good", "--threads", 1)[0] == 0
    assert not (teacher.folder / "superseded").exists()
    _, out, _ = skd("teacher", "small", "good", "--threads", 1, "--stale")
    assert "teacher good: restarted from the beginning" in out
    assert teacher.card() is not None
    # Its weights have the same bits, so its students are still current.
    assert not any(run.stale for run in finished_runs(expansion_here(), Store(Path("results"))))


def test_students_of_another_teacher_than_the_stored_one_are_stale(small: Path, skd: Skd) -> None:
    teacher = Store(Path("results")).teacher(expansion_here().teacher("good").id)
    card = json.loads(teacher.card_path.read_text())
    teacher.record_path.unlink()  # another card would contradict the record
    teacher.card_path.write_text(json.dumps({**card, "sha256": "0" * 64}))
    runs = finished_runs(expansion_here(), Store(Path("results")))
    taught = {run.label for run in runs if run.other_teacher}
    assert taught == {f"good--resnet8/{method} seed {seed}" for method in ("kd", "skd")
                      for seed in (0, 1)}  # fmt: skip
    (line,) = stale_lines("small", runs)
    assert line.startswith("4 finished runs were trained with other weights of the teacher")


def test_views_that_other_code_stored_teach_nobody(small: Path, skd: Skd) -> None:
    entry = Store(Path("results")).teacher(expansion_here().teacher("good").id)
    assert skd("teacher-views", "small", "good", "--threads", 1)[0] == 0
    (card,) = entry.folder.glob("views-*/logits-*.json")
    data = json.loads(card.read_text())
    data["code"]["skd/data/views.py"] = "0123456789abcdef"
    card.write_text(json.dumps(data))
    run = entry_of("good--resnet8/kd", 0)
    shutil.rmtree(run.folder)
    one = ("train", "small", "good--resnet8", "kd", "--threads", 1)
    status, _, err = skd(*one, "--teacher-views", "float16")
    assert status == 1
    assert "make them first: skd teacher-views" in err
    assert skd(*one)[0] == 0
    assert run.record().execution["teacher"] == "live"
    assert skd("teacher-views", "small", "good", "--threads", 1)[0] == 0
    assert json.loads(card.read_text())["code"]["skd/data/views.py"] != "0123456789abcdef"
    shutil.rmtree(run.folder)
    assert skd(*one)[0] == 0
    assert run.record().execution["teacher"] == "float16"


def test_a_change_that_leaves_the_bits_is_accepted_by_training_again(small: Path, skd: Skd) -> None:
    for seed in (0, 1):
        say_other_code(entry_of("good--resnet8/kd", seed), "baselines/kd.py")
        say_other_code(entry_of("good--resnet8/skd", seed), "baselines/simplifier.py")
    records = [path.read_bytes() for path in sorted(Path("results").glob("runs/*/record.json"))]
    status, out, _ = skd("accept", "small")
    assert status == 0
    assert out.count("the same bits") == 2  # a run of each kind
    (entry,) = json.loads((small / "accepted.json").read_text())
    assert set(entry["changes"]) == {"baselines/kd.py", "baselines/simplifier.py"}
    assert len(entry["trained_again"]) == 2
    assert "different version of the code" not in skd("status", "small")[1]
    assert records == [
        path.read_bytes() for path in sorted(Path("results").glob("runs/*/record.json"))
    ]


def test_other_numbers_are_accepted_only_with_a_reason(small: Path, skd: Skd) -> None:
    entry = entry_of("good--resnet8/kd", 0)
    say_other_code(entry, "baselines/kd.py")
    data = json.loads(entry.record_path.read_text())
    data["epochs"][0]["train_losses"]["kd"] *= 1.0001
    entry.record_path.write_text(json.dumps(data))
    status, out, err = skd("accept", "small")
    assert status == 1
    assert "good--resnet8/kd seed 0: OTHER NUMBERS in epoch 1" in out
    assert "nothing is accepted" in err
    assert not (small / "accepted.json").exists()
    assert skd("accept", "small", "--reason", "renamed a variable")[0] == 0
    (accepted_change,) = json.loads((small / "accepted.json").read_text())
    assert accepted_change["why"] == "renamed a variable"
    assert not any(run.stale for run in finished_runs(expansion_here(), Store(Path("results"))))


def test_what_cannot_be_trained_again_here_needs_a_reason(small: Path, skd: Skd) -> None:
    say_other_code(entry_of("good--resnet8/kd", 0), "baselines/kd.py")
    shutil.rmtree(small / "results" / "teachers")
    status, _, err = skd("accept", "small")
    assert status == 2
    assert (
        "good--resnet8/kd seed 0 cannot be trained again here (its teacher is not in the store)"
        in err
    )
    assert "--reason" in err
    assert not (small / "accepted.json").exists()


def test_a_run_of_every_kind_is_tried(small: Path) -> None:
    """An edited simplifier is among every run's files, but only some runs use it."""
    runs = finished_runs(expansion_here(), Store(Path("results")))
    kinds = [[run.label for run in kind] for kind in group_by_kind(runs)]
    both = [[f"{cell} seed {seed}" for seed in (0, 1)]
            for cell in ("resnet8/student", "good--resnet8/kd", "good--resnet8/skd")]  # fmt: skip
    both[0].insert(0, "teacher good")  # the same training, with seed 7
    assert kinds == both


def finished(label: str, **changes: tuple[str, str]) -> FinishedRun:
    return FinishedRun(label, StoreEntry(Path(label)), changes)


def test_runs_of_several_generations_are_accepted_one_by_one() -> None:
    runs = [finished("old", a=("0", "2")), finished("new", a=("1", "2"), b=("1", "2")),
            finished("other", b=("1", "2")), finished("today")]  # fmt: skip
    groups = group_by_changes(runs)
    assert [[run.label for run in group.runs] for group in groups] == [["old", "other"], ["new"]]


@pytest.mark.slow
def test_an_edited_loss_is_never_pooled_silently(tmp_path: Path) -> None:
    """The loss is edited and a seed is added: one cell has the old and the new formula."""
    code = tmp_path / "code"
    for package in ("skd", "baselines", "report", "benchmarks", "workflow"):
        shutil.copytree(
            ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    environment = {**os.environ, "PYTHONPATH": str(code), "COLUMNS": "200"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    train = ("skd", "train", "small.yaml", "--threads", "1", "--device", "cpu")
    sheet = SHEET.replace("methods: [student, kd, skd]", "methods: [kd]")
    (tmp_path / "small.yaml").write_text(sheet.replace("seeds: 2", "seeds: 1"))
    run(*train)
    loss = code / "baselines" / "kd.py"
    text = loss.read_text()
    edited = text.replace("return kd_loss(", "return 1.5 * kd_loss(")
    assert edited != text
    loss.write_text(edited)
    (tmp_path / "small.yaml").write_text(sheet)
    message = "1 finished run was trained by a different version of the code (baselines/kd.py)"
    assert message in run(*train)
    run("report", "small.yaml")
    page = (tmp_path / "results" / "small" / "report" / "results.md").read_text()
    assert "pooled: 1 by the current code and 1 by another version of the code" in page
    assert "(changed: baselines/kd.py)" in page
    assert "mixed code" in page
