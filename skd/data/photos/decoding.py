"""Decoding of photos."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skd.data.images import DataError

JPEG_MAGIC = b"\xff\xd8"  # the first bytes of every JPEG file


@cache
def jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """Return torchvision's decoder of a JPEG file's bytes, (n,) uint8, or ``None`` without one.

    It gives the same pixels as PIL, faster. torchvision has deprecated it since 0.29 in favour of
    torchcodec, which cannot replace it: torchcodec rotates photos by their orientation tags.
    """
    with contextlib.suppress(ImportError):
        from torchvision.io import ImageReadMode, decode_jpeg  # takes seconds to import

        return partial(decode_jpeg, mode=ImageReadMode.RGB)
    return None


def decode_photo(path: Path) -> Tensor:
    """Return a photo's pixels in RGB, (3, H, W) uint8; grey is repeated and CMYK is converted.

    JPEG files are decoded by torchvision where possible, with the same bits as PIL but faster, and
    other files by PIL. Orientation tags are ignored, as is usual.

    Raises:
        DataError: the file is missing, empty, truncated or not an image; names the file.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
        if data[:2].tobytes() == JPEG_MAGIC and (decode := jpeg_decoder()):
            with contextlib.suppress(RuntimeError):  # PIL reads more formats, with clearer errors
                return decode(torch.from_numpy(data))
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    # Decoders raise many kinds of errors on damaged files: OSError, ValueError, SyntaxError, ….
    except Exception as error:
        raise DataError(
            f"the photo {path} cannot be read ({_reason(path, error)}); replace it by an intact "
            "copy: no photo is skipped"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its image format is unknown"
    return str(error) or type(error).__name__
