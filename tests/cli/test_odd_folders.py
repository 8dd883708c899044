"""Commands in unusual folders: wrong ones, another user's, links, files, full disks."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from skd.cli.report import main as report_main
from skd.expansion.expand import expand_study
from skd.study.expansion_files import expansion_path, load_expansion_readonly, write_expansion

SHEET = """
title: A very small study
dataset: {name: synthetic, train_limit: 64}
recipe: {epochs: 1, milestones: []}
teachers: {big: {network: resnet8, train: {seed: 0}}}
pairs: [{teacher: big, student: resnet8}]
methods: [student, kd]
seeds: [0]
"""
READING = [
    ["status", "tiny"],
    ["cancel", "tiny"],
    ["show", "tiny/big"],
    ["show", "abcdef"],
    ["analyse", "tiny"],
    ["job", "errors", "tiny", "snakemake.log"],
    ["plan", "tiny", "--renew"],
]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without results; a study `tiny` can be found from it."""
    sheets, folder = tmp_path / "sheets", tmp_path / "here"
    for new in (sheets, folder):
        new.mkdir()
    (sheets / "tiny.yaml").write_text(SHEET)
    monkeypatch.setenv("SKD_STUDIES", str(sheets))
    monkeypatch.delenv("SKD_TEACHERS", raising=False)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expand in this process, which is quicker than in a new one."""

    def expanded(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        options = dict(zip(command[5::2], command[6::2], strict=True))
        results, output = Path(options["--results"]), options.get("--output")
        study = expand_study(command[command.index("expand") + 1], results)
        write_expansion(study, results, Path(output) if output else None)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("skd.study.expansion_files.subprocess", SimpleNamespace(run=expanded))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def line(done: tuple[int, str, str]) -> str:
    """Return the one line that a command ended with."""
    status, out, err = done
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


def report(monkeypatch: pytest.MonkeyPatch, capsys: Any, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["skd-report", *arguments])
    with pytest.raises(SystemExit) as stopped:
        report_main()
    return stopped.value.code, *capsys.readouterr()


# The wrong folder.


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_reading_command_reports_missing_results_and_writes_nothing(
    working_folder: Path, skd: Run, arguments: list[str]
) -> None:
    message = line(skd(*arguments))
    assert message.startswith(
        f"skd: there is no results folder {working_folder}/results; run this in the "
    )
    assert "--results FOLDER" in message
    assert files(working_folder) == []


@pytest.mark.parametrize("arguments", READING[:-1], ids=" ".join)
def test_a_folder_that_holds_no_results_is_reported(
    working_folder: Path, skd: Run, arguments: list[str]
) -> None:
    Path("results", "runs").mkdir(parents=True)
    message = line(skd(*arguments, "--results", "."))
    assert message.startswith(
        f"skd: {working_folder} has no results: neither runs/ nor teachers/ nor "
    )
    assert "(results has); run this in" in message
    assert files(working_folder) == ["results", "results/runs"]


def test_a_report_needs_results_too(working_folder: Path, monkeypatch: Any, capsys: Any) -> None:
    for more in ([], ["--output", "page"]):
        message = line(report(monkeypatch, capsys, "tiny", *more))
        assert message.startswith("skd-report: there is no results folder ")
    assert files(working_folder) == []


@pytest.mark.parametrize("arguments", [*READING, ["plan", "tiny"]], ids=" ".join)
def test_results_that_are_not_a_folder_are_reported(
    working_folder: Path, skd: Run, arguments: list[str]
) -> None:
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    assert "file is a file, not a results folder" in line(skd(*arguments, "--results", "file"))
    assert "link is a link to nowhere, which does not exist" in line(
        skd(*arguments, "--results", "link")
    )
    assert "loop is a link to loop" in line(skd(*arguments, "--results", "loop"))
    assert files(working_folder) == ["file", "link", "loop"]


def test_a_study_can_be_planned_before_there_are_results(
    working_folder: Path, in_process: None, skd: Run
) -> None:
    status, out, _ = skd("plan", "tiny")
    assert status == 0
    assert "this plan is not stored: there is no folder results" in out
    assert files(working_folder) == []


def test_to_look_at_a_study_leaves_the_kept_expansion_as_it_is(
    working_folder: Path, in_process: None, skd: Run
) -> None:
    results = Path("results")
    stored = expansion_path(results, "tiny")
    stored.parent.mkdir(parents=True)
    stored.write_text("{}")
    assert len(load_expansion_readonly("tiny", results).cells) == 2
    assert skd("status", "tiny")[0] == 0
    assert stored.read_text() == "{}"
    assert files(results) == ["tiny", "tiny/specs.json"]


# Another user's results.


COMMANDS = """
import contextlib, io, json, sys
from skd.cli.report import main as report
from skd.cli.main import main as skd
done = []
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv, output, status = [name, *arguments], io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            {"skd": skd, "skd-report": report}[name]()
        except SystemExit as stopped:
            status = stopped.code or 0
    done.append((status, output.getvalue()))
print(json.dumps(done))
"""


def unprivileged(*commands: list[str]) -> list[tuple[int, str]]:
    """Run commands in a process without root's rights, so that file modes apply to it."""
    command = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv to run without that")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_anothers_results_can_be_looked_at_without_a_right_to_write(
    working_folder: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    write_expansion(expand_study("tiny"), theirs)
    (theirs / "runs").mkdir()
    for folder in (theirs / "tiny", theirs / "runs", theirs):
        folder.chmod(0o555)
    before, of = files(theirs), ["--results", str(theirs)]
    status, plan, show, diff, refused, page = unprivileged(
        ["skd", "status", "tiny", *of],
        ["skd", "plan", "tiny", *of],
        ["skd", "show", "tiny/big", *of],
        ["skd", "diff", str(theirs), str(theirs)],
        ["skd-report", "tiny", *of],
        ["skd-report", "tiny", *of, "--output", "page"],
    )
    assert [done[0] for done in (status, plan, show, diff)] == [0, 0, 0, 0]
    assert "this plan is not stored" in plan[1]
    assert refused[0] == 2
    assert "tiny/report cannot be written: Permission denied" in refused[1]
    assert page == [0, "page/index.html\n"]
    assert files(theirs) == before


def test_a_report_elsewhere_removes_nothing_there(
    working_folder: Path, in_process: None, monkeypatch: Any, capsys: Any
) -> None:
    write_expansion(expand_study("tiny"), Path("results"))
    own = Path("page", "data", "mine.csv")
    own.parent.mkdir(parents=True)
    own.touch()
    assert report(monkeypatch, capsys, "tiny", "--output", "page")[1] == "page/index.html\n"
    assert own.exists()
    assert files(Path("results")) == ["tiny", "tiny/specs.json"]


# Unwritable or unreadable files are reported before the work.


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "tiny", "--json", "."],
        ["expand", "tiny", "--output", "."],
        ["train", "tiny", "--output", "."],
        ["teacher", "tiny", "big", "--output", "."],
        ["bench", "tiny", "--output", "."],
        ["bench-loader", "--folder", "photos", "--output", "."],
        ["merge", "results", "--results", "/dev/null"],
        ["merge", "loop"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_refused_first(
    working_folder: Path, skd: Run, arguments: list[str]
) -> None:
    Path("results", "runs").mkdir(parents=True)
    Path("loop").symlink_to("loop")
    line(skd(*arguments))
    assert files(working_folder) == ["loop", "results", "results/runs"]


def test_a_full_disk_is_a_line(
    working_folder: Path, skd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # the system names no path

    monkeypatch.setattr(os, "fsync", full)
    message = line(skd("expand", "tiny"))
    assert (
        "results/tiny/specs.json cannot be written: No space left on device; free some" in message
    )
    assert files(working_folder / "results") == ["tiny"]


def test_an_error_that_is_the_codes_fault_keeps_its_traceback(
    working_folder: Path, skd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: Any) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("skd.cli.status.open_study", faulty)
    with pytest.raises(OSError, match="Bad file descriptor"):
        skd("status", "tiny")


# Checkpoints.


@pytest.mark.parametrize("command", ["evaluate", "import-teacher"])
@pytest.mark.parametrize(
    ("checkpoint", "network", "words"),
    [
        ("missing.pth", "resnet8", "missing.pth"),
        ("empty.pth", "resnet9", "unknown network 'resnet9' (did you mean 'resnet8'?)"),
        ("empty.pth", "resnet8", "empty.pth for resnet8 does not fit"),
    ],
)
def test_a_wrong_checkpoint_is_refused_before_data_are_loaded_or_a_store_is_made(
    working_folder: Path,
    skd: Run,
    monkeypatch: Any,
    command: str,
    checkpoint: str,
    network: str,
    words: str,
) -> None:
    def load(*_: Any) -> None:
        raise AssertionError("data were loaded")

    monkeypatch.setattr("skd.training.resources.Resources.dataset", load)
    torch.save({"other": torch.zeros(1)}, "empty.pth")
    assert words in line(skd(command, checkpoint, "--network", network))
    assert files(working_folder) == ["empty.pth"]
