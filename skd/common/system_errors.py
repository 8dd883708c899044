"""Errors of the file system as a line: what could not be done to which path, and what helps.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from skd.common.files import UnwritableError

RIGHTS = "its owner has to give you the right to, or name another path (--output, --results)"
SPACE = "free some space there, or name a path elsewhere; then run the same command again"
FOLDER = "move what is there away, or name another path"
LIMIT = "raise the limit of open files: ulimit -n"
TROUBLE = "the file system is in trouble: try again, then ask its administrator"
# What a user can put right. Any other error is a fault of the code, and keeps its traceback.
REMEDIES = {
    errno.ENOENT: "check the path and the working directory",
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: "name a path on another file system",
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: SPACE,
    errno.EISDIR: "give a file's path",
    errno.ENOTDIR: FOLDER,
    errno.EEXIST: FOLDER,
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "mend the link",
    errno.EMFILE: LIMIT,
    errno.ENFILE: LIMIT,
    errno.EIO: TROUBLE,
    errno.ESTALE: TROUBLE,
}


def explain_os_error(error: OSError) -> str | None:
    """Return an error as a line, or none where it is not the user's to put right."""
    if error.errno not in REMEDIES:
        return None
    cause, remedy = error.strerror or str(error), REMEDIES[error.errno]
    if not isinstance(error.filename, str | bytes):
        return f"{cause}; {remedy}"
    path = Path(os.fsdecode(error.filename))
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
        with contextlib.suppress(OSError):
            cause = _in_the_way(path) or cause
    done = "written" if isinstance(error, UnwritableError) else "read"
    return f"{path} cannot be {done}: {cause}; {remedy}"


def _in_the_way(path: Path) -> str | None:
    """Return what on the way to a path is a dangling link, or no folder."""
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not place.exists():
            return f"{place} is a link to {place.readlink()}, which is not there"
        if place.exists() and not place.is_dir():
            return f"{place} is not a folder"
    return None
