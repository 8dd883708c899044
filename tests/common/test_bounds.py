"""Every command refuses counts that would exhaust a machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from skd.common import bounds


@pytest.mark.parametrize(
    "command",
    [
        ("train", "demo", "--threads"),
        ("train", "demo", "--lanes"),
        ("train", "demo", "--workers"),
        ("teacher", "demo", "teacher", "--threads"),
        ("teacher-views", "demo", "teacher", "--threads"),
        ("evaluate", "x.pth", "--network", "resnet8", "--threads"),
        ("import-teacher", "x.pth", "--network", "resnet8", "--threads"),
        ("job", "train", "demo", "pair", "kd", "--cores"),
        ("job", "train", "demo", "pair", "kd", "--processes"),
        ("job", "train", "demo", "pair", "kd", "--side-by-side"),
        ("job", "teacher", "demo", "teacher", "--cores"),
        ("bench", "--threads"),
        ("bench", "--lanes"),
        ("bench", "--workers"),
        ("bench-loader", "--folder", ".", "--threads"),
        ("bench-loader", "--folder", ".", "--workers"),
    ],
    ids=lambda command: " ".join(command[:2] + command[-1:]),
)
def test_more_than_the_machine_bears_is_refused(
    skd: Callable[..., tuple[int, str, str]], command: tuple[str, ...], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = skd(*command, 5000)
    assert status == 2
    plain = " ".join(error.replace("│", " ").split())
    assert "got 5000; at most" in plain
    assert "on this machine" in plain
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("plan", "demo", "--job-minutes"),
        ("plan", "demo", "--budget"),
        ("diff", ".", ".", "--margin"),
        ("diff", ".", ".", "--equivalence"),
    ],
    ids=lambda command: command[-1],
)
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_what_must_be_finite_is(
    skd: Callable[..., tuple[int, str, str]], command: tuple[str, ...], value: str
) -> None:
    status, _, error = skd(*command, value)
    assert status == 2
    assert command[-1] in error


def test_bounds_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert bounds.check_threads(8) == 8
    assert bounds.check_threads(None) is None
    assert bounds.check_lanes([1, 16]) == [1, 16]
    assert bounds.check_workers(16) == 16
    for check, count in (
        (bounds.check_threads, 9),
        (bounds.check_workers, 17),
        (bounds.check_lanes, [1, 17]),
    ):
        with pytest.raises(typer.BadParameter, match="at most"):
            check(count)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert bounds.check_lanes(64) == 64
