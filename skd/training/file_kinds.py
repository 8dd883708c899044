"""Kinds of files that are not checkpoints, recognised by their first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

SAVE_ANEW = (
    "load it in an environment that has its code, and save only its weights: "
    "torch.save(model.state_dict(), 'weights.pth')"
)
DOWNLOAD_AGAIN = "download or copy it again"
HEAD_BYTES = 1 << 20  # bytes; a pickle names its classes early
_NETWORK = (b"ctorch.nn.modules.", b"ctorch.nn.parallel.")  # how a pickle names their classes
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run: git lfs pull"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras and TensorFlow save; convert its weights to PyTorch"),
    (b"\x93NUMPY", "a NumPy array (.npy), not a checkpoint of PyTorch"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
)
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


def describe_file(path: Path) -> str | None:
    """Return what a file or folder is and what to do about it; ``None`` if that is unknown.

    Only files without readable weights are described: for a good checkpoint it is ``None``.

    Raises:
        OSError: the file cannot be read.
    """
    if path.is_dir():
        return _kind_of_folder(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return f"an empty file; {DOWNLOAD_AGAIN}"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    start = head[:512].lstrip().lower()
    if start.startswith(_WEB_PAGES):
        return "a web page, not the file behind it; download it by its direct link"
    if start.startswith((b"{", b"[")) and _is_text(head):
        return f"JSON text, as a server answers with an error; {DOWNLOAD_AGAIN}"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if any(name in head for name in _NETWORK):
        return f"a whole pickled network; {SAVE_ANEW}"
    return f"a text file, not a checkpoint; {DOWNLOAD_AGAIN}" if _is_text(head) else None


def _kind_of_folder(path: Path) -> str:
    if (path / ".metadata").is_file():
        return (
            "the folder of a distributed checkpoint; make one file of it: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch '{path}' weights.pth"
        )
    return "a folder; name the file in it"


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.endswith("data.pkl")]
            pickled = archive.read(pickles[0]) if pickles else b""
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError):
        return f"incomplete or damaged; {DOWNLOAD_AGAIN}"
    if any(name.endswith("constants.pkl") for name in names):
        return (
            "a TorchScript archive; save its weights alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if any(name in pickled for name in _NETWORK):
        return f"a whole pickled network; {SAVE_ANEW}"
    if pickles:
        return None
    if any(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz), not a checkpoint of PyTorch"
    if any(name.endswith(".h5") for name in names):
        return "a Keras file; convert its weights to PyTorch"
    return "a zip archive without weights of PyTorch; unpack it if the checkpoint is inside"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if (
            len(head) < HEAD_BYTES or error.start < HEAD_BYTES - 4
        ):  # a character may be cut off there
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char in "\r\n\t" for char in text)
