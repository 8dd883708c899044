"""Errors of the file system as one line: the path, what failed, and what to do. No torch."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from skd.common.files import UnwritableError

RIGHTS = "ask its owner for permission, or choose another path (--output, --results)"
SPACE = "free some space there, or choose another path; then run the same command again"
FOLDER = "move that file away, or choose another path"
LIMIT = "raise the limit of open files: ulimit -n"
TROUBLE = "the file system has a fault: try again, then ask its administrator"
# Errors that a user can fix. Any other error is a bug and keeps its traceback.
REMEDIES = {
    errno.ENOENT: "check the path and the working directory",
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: "choose a path on another file system",
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: SPACE,
    errno.EISDIR: "give a file's path",
    errno.ENOTDIR: FOLDER,
    errno.EEXIST: FOLDER,
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "repair the link",
    errno.EMFILE: LIMIT,
    errno.ENFILE: LIMIT,
    errno.EIO: TROUBLE,
    errno.ESTALE: TROUBLE,
}


def explain_os_error(error: OSError) -> str | None:
    """Return an error as one line; ``None`` if a user cannot fix it."""
    if error.errno not in REMEDIES:
        return None
    cause, remedy = error.strerror or str(error), REMEDIES[error.errno]
    if not isinstance(error.filename, str | bytes):
        return f"{cause}; {remedy}"
    path = Path(os.fsdecode(error.filename))
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        with contextlib.suppress(OSError):
            cause = _obstacle(path) or cause
    action = "written" if isinstance(error, UnwritableError) else "read"
    return f"{path} cannot be {action}: {cause}; {remedy}"


def _obstacle(path: Path) -> str | None:
    """Return which part of a path is a dangling link, or is not a folder."""
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and not part.exists():
            return f"{part} is a link to {part.readlink()}, which does not exist"
        if part.exists() and not part.is_dir():
            return f"{part} is not a folder"
    return None
