"""Writing files: errors name the obstacle, and no temporary file remains."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skd.common.files import (
    UnwritableError,
    check_writable,
    check_writable_folder,
    write_atomically,
)
from skd.common.system_errors import explain_os_error


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("folder", "Is a directory"),
        ("file/x.json", "file is not a folder"),
        ("link/x.json", "link is a link to nowhere, which does not exist"),
        ("y" * 300, "File name too long"),
        (f"{'y' * 300}/x.json", "File name too long"),
    ],
)
@pytest.mark.parametrize("write", [check_writable, lambda path: write_atomically(path, b"x")])
def test_a_path_that_cannot_be_written_is_reported_with_what_is_in_the_way(
    tmp_path: Path, write: Callable[[Path], None], path: str, why: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UnwritableError) as caught:
        write(tmp_path / path)
    message = explain_os_error(caught.value)
    assert message.startswith(f"{tmp_path / path} cannot be written: ")
    assert why in message
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "folder", "link"]


def test_a_file_where_a_folder_should_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError) as caught:
        check_writable_folder(tmp_path / "file")
    assert f"written: {tmp_path / 'file'} is not a folder; move" in explain_os_error(caught.value)


def test_what_can_be_written_leaves_no_trace_before_it_is(tmp_path: Path) -> None:
    check_writable(tmp_path / "deep" / "below" / "x.json")
    check_writable_folder(tmp_path / "deep" / "below")
    assert [path.name for path in sorted(tmp_path.iterdir())] == []
