"""Checkpoints: bit-exact, and loadable whenever the process is killed."""

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from skd.store.leftovers import leftover_files, remove_files
from skd.store.store import StoreEntry
from skd.training import checkpoint

CPU = torch.device("cpu")
RUN = checkpoint.CheckpointOwner("0123456789abcdef", "5" * 16)


def state(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    return {
        "number": number,
        "training": {
            "weights": torch.randn(50, 3, generator=generator),
            "half": torch.randn(7, generator=generator).half(),
            "counts": torch.arange(number),
            "history": [{"loss": 0.1 * number, "name": "é"}],
        },
        "sessions": ["torch 2, a CPU"],
    }


def save(folder: Path, data: dict[str, Any]) -> None:
    checkpoint.save(folder, data, RUN)


def load(folder: Path) -> dict[str, Any] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return checkpoint.load(folder, CPU, RUN)


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    return type(first) is type(second) and first == second


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    special = {"x": torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e-45])}
    save(tmp_path, special)
    bits = load(tmp_path)["x"].view(torch.int32)
    assert torch.equal(bits, special["x"].view(torch.int32))
    save(tmp_path, state(3))
    assert equal(load(tmp_path), state(3))


def test_two_generations_are_kept(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path, state(number))
        assert load(tmp_path)["number"] == number
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "checkpoint.pt").unlink()
    assert equal(load(tmp_path), state(2))


def test_the_saved_state_is_that_of_the_moment(tmp_path: Path) -> None:
    mine = state(1)
    save(tmp_path, mine)
    mine["training"]["weights"].zero_()
    assert equal(load(tmp_path), state(1))


def flip(position: float) -> Callable[[bytes], bytes]:
    def flipped(data: bytes) -> bytes:
        at = int(position * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flipped


DAMAGES = {
    "empty": lambda data: b"",
    "digest alone": lambda data: data[:32],
    "truncated": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"\0",
    "first bit": flip(0),
    "middle bit": flip(0.5),
    "last bit": flip(1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_noticed_and_the_previous_one_used(
    tmp_path: Path, damage: str
) -> None:
    save(tmp_path, state(1))
    save(tmp_path, state(2))
    current = tmp_path / "checkpoint.pt"
    current.write_bytes(DAMAGES[damage](current.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint\.pt is damaged"):
        assert equal(checkpoint.load(tmp_path, CPU, RUN), state(1))


def test_with_both_damaged_there_is_none(tmp_path: Path) -> None:
    save(tmp_path, state(1))
    save(tmp_path, state(2))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged") as caught:
        assert checkpoint.load(tmp_path, CPU, RUN) is None
    assert len(caught) == 2


class Killed(BaseException):
    pass


class DyingProcess:
    """Allows a number of file system changes and fails at the next, a write halfway."""

    def __init__(self, steps: int, patch: pytest.MonkeyPatch) -> None:
        self.left = steps
        self.open = Path.open
        patch.setattr("os.fsync", self.deadly(os.fsync))
        for name in ("replace", "rename", "unlink"):
            patch.setattr(Path, name, self.deadly(getattr(Path, name)))
        patch.setattr(Path, "open", self.opener())

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:  # permanently: a dead process does not clean up
            raise Killed

    def deadly(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.step()
            return call(*arguments, **named)

        return counted

    def opener(self) -> Callable[..., Any]:
        def open_(path: Path, mode: str = "r", **options: Any) -> Any:
            return self.open_deadly(path, mode) if "w" in mode else self.open(path, mode, **options)

        return open_

    def open_deadly(self, path: Path, mode: str) -> io.BytesIO:
        self.step()
        process, open_file = self, self.open

        class File(io.FileIO):
            def write(self, data: bytes) -> int:
                try:
                    process.step()
                except Killed:
                    super().write(data[: len(data) // 2])
                    raise
                return super().write(data)

        open_file(path, "wb").close()
        return File(path, "wb")


def killed_while_saving(
    folder: Path, new: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    with monkeypatch.context() as patch:
        DyingProcess(steps, patch)
        try:
            save(folder, new)
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_killed_at_any_step_of_saving_the_old_or_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    numbers = []
    for steps in range(100):
        folder = tmp_path / str(steps)
        folder.mkdir()
        for number in range(before):
            save(folder, state(number))
        died = killed_while_saving(folder, state(99), steps, monkeypatch)
        loaded = load(folder)
        numbers.append(loaded and loaded["number"])
        old, new = (state(before - 1) if before else None), state(99)
        assert equal(loaded, new) or (died and equal(loaded, old))
        save(folder, state(100))  # and saving works again
        assert equal(load(folder), state(100))
        if not died:
            break
    assert steps > 4, "the steps of saving were not seen"
    assert numbers == sorted(numbers, key=lambda number: number == 99)  # once new, it stays


def test_killed_twice_in_a_row_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in range(3, 9):
        for second in range(3, 9):
            folder = tmp_path / f"{first}-{second}"
            folder.mkdir()
            save(folder, state(1))
            killed_while_saving(folder, state(2), first, monkeypatch)
            at = load(folder)["number"]
            killed_while_saving(folder, state(3), second, monkeypatch)
            assert load(folder)["number"] in (at, 3)


def test_going_on_from_the_previous_one_and_killed_again_something_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []
    for steps in range(12):
        folder = tmp_path / str(steps)
        folder.mkdir()
        save(folder, state(1))
        save(folder, state(2))
        (folder / "checkpoint.pt").write_bytes(b"damaged")
        killed_while_saving(folder, state(3), steps, monkeypatch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = checkpoint.load(folder, CPU, RUN)
        if loaded is None or loaded["number"] not in (1, 3):
            lost.append(steps)
    assert lost == []


def test_a_failed_save_is_reported_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    save(tmp_path, state(1))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            save(tmp_path, state(2))
    assert equal(load(tmp_path), state(1))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    save(tmp_path, state(3))
    assert equal(load(tmp_path), state(3))


def test_a_finished_runs_checkpoints_are_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {tmp_path / "record.json", tmp_path / "weights.safetensors"}
    for path in results:
        path.write_bytes(b"")
    for steps in range(12):
        save(tmp_path, state(1))
        save(tmp_path, state(2))
        killed_while_saving(tmp_path, state(3), steps, monkeypatch)
        remove_files(leftover_files(StoreEntry(tmp_path)))
        assert {*tmp_path.iterdir()} == results
    assert load(tmp_path) is None
    remove_files(leftover_files(StoreEntry(tmp_path)))


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    save(tmp_path, {"x": Evil(tmp_path / "trace")})
    with (
        pytest.warns(UserWarning, match="does not fit"),
        pytest.raises(checkpoint.CheckpointError, match="UnpicklingError"),
    ):
        checkpoint.load(tmp_path, CPU, RUN)
    assert not (tmp_path / "trace").exists()
