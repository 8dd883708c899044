"""Logs of runs: what they have, resumed runs, and numbers that do not change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skd.common import extras
from skd.common.errors import InterruptedRunError
from skd.planning.parallel_config import ParallelConfig
from skd.store.records import EpochMetrics
from skd.store.store import Store
from skd.study.sheet_files import StudyError
from skd.training.run_logs import RunLogError, RunLogs, scalars
from tests.builders import tiny
from tests.builders.commands import Skd


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points of each tag in a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


def expected(epochs: tuple[EpochMetrics, ...]) -> dict[str, list[tuple[int, float]]]:
    points = [(epoch.epoch, scalars(epoch)) for epoch in epochs]
    return {
        tag: [(step, pytest.approx(values[tag], rel=1e-6)) for step, values in points]
        for tag in points[0][1]
    }


def stop_in_step(number: int) -> Callable[[], bool]:
    """Return a function that is true at its call of that number, from 1."""
    calls = iter(range(1, 1000))
    return lambda: next(calls) == number


def test_a_log_has_what_the_record_has_and_changes_no_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    expansion = tiny.study()
    plain = tiny.run(expansion, tmp_path / "plain", "skd")
    record = tiny.run(expansion, tmp_path / "logged", "skd", logs=RunLogs("tensorboard"))
    assert tiny.numbers(plain) == tiny.numbers(record)
    points = logged(Store(tmp_path / "logged").run(record.id).folder / "tensorboard")
    assert points == expected(record.epochs)
    assert "diagnostics/entropy_simplified" in points


def test_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    expansion, logs = tiny.study(), RunLogs("tensorboard", tmp_path / "logs")
    # The log has epoch 2, and no checkpoint has it: the process was killed after it.
    unsaved = {"checkpoint_seconds": 1e9, "logs": logs}
    with pytest.raises(InterruptedRunError):
        tiny.run(expansion, tmp_path, "skd", **unsaved, should_stop=stop_in_step(3))
    entry = Store(tmp_path).run(expansion.cell(tiny.PAIR, "skd").runs[0])
    saved = {path: path.read_bytes() for path in entry.folder.glob("checkpoint*.pt")}
    with pytest.raises(InterruptedRunError):
        tiny.run(expansion, tmp_path, "skd", **unsaved, should_stop=stop_in_step(2))
    for path in entry.folder.glob("checkpoint*.pt"):
        path.unlink()
    for path, content in saved.items():
        path.write_bytes(content)
    (folder,) = logs.folder.iterdir()
    assert folder.name == f"teacher--resnet8-skd-{entry.id}"
    assert [step for step, _ in logged(folder)["train_loss/total"]] == [1, 2]
    record = tiny.run(expansion, tmp_path, "skd", **unsaved)
    assert logged(folder) == expected(record.epochs)


def test_a_log_that_cannot_be_written_ends_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "logs").write_text("a file")
    record = tiny.run(
        tiny.study(), tmp_path, "student", logs=RunLogs("tensorboard", tmp_path / "logs")
    )
    assert len(record.epochs) == 3
    assert capsys.readouterr().err.count("warning: no log in") == 1


def test_a_missing_package_is_named_before_the_training(
    tmp_path: Path, skd: Skd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    arguments = ("train", "demo", "--results", tmp_path, "--log", "tensorboard")
    status, _, error = skd(*arguments)
    assert status == 2
    assert "needs the package tensorboard; install it with the extra 'tensorboard'" in error
    assert not (tmp_path / "runs").exists()
    with pytest.raises(extras.MissingExtraError, match="run_log: tensorboard needs"):
        ParallelConfig(run_log="tensorboard").check(tiny.study())


def test_a_folder_needs_a_log(tmp_path: Path) -> None:
    with pytest.raises(RunLogError, match=r"--log-dir .* has no effect without --log tensorboard"):
        RunLogs(folder=tmp_path).check()
    with pytest.raises(StudyError, match="run_log_dir has no effect"):
        ParallelConfig(run_log_dir="logs").check(tiny.study())


def test_the_workflow_passes_the_log_on() -> None:
    assert "--run-log" not in ParallelConfig().command_options
    config = ParallelConfig(run_log="tensorboard", run_log_dir="my logs")
    assert config.command_options.endswith(" --run-log tensorboard --run-log-dir 'my logs'")
