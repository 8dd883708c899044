"""A sample of the crash points that `python -m tests.crash_points` tries, and its shim."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.paths import ROOT

WRITE = """
import sys
from pathlib import Path
from skd.common.files import write_atomically
from tests.crash_points.dying import Dying
folder = Path(sys.argv[1])
dying = Dying(folder, int(sys.argv[2]))
write_atomically(folder / "new" / "file", b"content")
(folder / "text").write_text("content")
with (folder / "text").open("r+") as file:
    file.truncate(1)
print(dying.count)
"""
# mkdir; open, write, fsync, rename, unlink, fsync of the folder; open, write; open, truncate
OPERATIONS = 11


def write(folder: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITE, folder, str(fatal)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_operation_is_counted(tmp_path: Path) -> None:
    done = write(tmp_path, 0)
    assert done.stderr == ""
    assert done.stdout == f"{OPERATIONS}\n"


@pytest.mark.parametrize(("fatal", "there"), [(1, []), (2, []), (3, ["con"]), (4, ["content"])])
def test_the_process_dies_before_the_operation_and_tears_a_write(
    tmp_path: Path, fatal: int, there: list[str]
) -> None:
    assert write(tmp_path, fatal).returncode == -9
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == there


def test_a_sample_of_crash_points_leaves_no_trace() -> None:
    command = [sys.executable, "-m", "tests.crash_points", "--step", "import", "--every", "14"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
