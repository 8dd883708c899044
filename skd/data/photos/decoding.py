"""Decoding photos: pixels from files, or an error that names the file."""

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

JPEG_MAGIC = b"\xff\xd8"  # what each begins with, whatever its name


@cache
def jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """Return what decodes a JPEG file's bytes, (n,) uint8, faster than PIL: torchvision.

    Or none, where it no longer does: it is deprecated since 0.29, in favour of torchcodec, which
    however turns photos by their orientation tags. PIL gives the same bits, later.
    """
    with contextlib.suppress(ImportError):
        from torchvision.io import ImageReadMode, decode_jpeg  # seconds to import

        return partial(decode_jpeg, mode=ImageReadMode.RGB)
    return None


def decode_photo(path: Path) -> Tensor:
    """Return a photo's pixels, (3, H, W) uint8, in RGB: grey is repeated, CMYK converted.

    JPEG by a decoder whose pixels are PIL's bit for bit and come sooner; everything else by PIL.
    Orientation tags are ignored, as the field does.

    Raises:
        DataError: missing, empty, truncated or no image; names the file.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
        if data[:2].tobytes() == JPEG_MAGIC and (fast := jpeg_decoder()):
            with contextlib.suppress(RuntimeError):  # PIL reads more kinds, or says better why not
                return fast(torch.from_numpy(data))
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    # Decoders raise many kinds of errors on damaged files: OSError, ValueError, SyntaxError, ….
    except Exception as error:
        raise DataError(
            f"the photo {path} cannot be read ({_reason(path, error)}); put a sound copy in its "
            "place: it is never skipped"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no image that is known here"
    return str(error) or type(error).__name__
