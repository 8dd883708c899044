"""Rotation, shear and translation of whole batches: nearest pixels, black outside the image.

The place in the source image is computed as PIL does, in numbers with 16 binary digits after the
point. So the pixels are PIL's, on every device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

UNIT = 2**16


def rotate(pixels: Tensor, degrees: Tensor) -> Tensor:
    """Rotate anticlockwise around the centre."""
    height, width = pixels.shape[2:]
    angle = -np.radians(degrees.cpu().numpy() % 360)
    cosine, sine = np.cos(angle).round(15), np.sin(angle).round(15)
    columns = width / 2 - cosine * width / 2 - sine * height / 2
    rows = height / 2 + sine * width / 2 - cosine * height / 2
    return _transform(pixels, (cosine, sine, columns, -sine, cosine, rows))


def shear_x(pixels: Tensor, slope: Tensor) -> Tensor:
    """Shift each row by its number times the slope."""
    return _transform(pixels, (1, slope.cpu().numpy(), 0, 0, 1, 0))


def shear_y(pixels: Tensor, slope: Tensor) -> Tensor:
    """Shift each column by its number times the slope."""
    return _transform(pixels, (1, 0, 0, slope.cpu().numpy(), 1, 0))


def translate_x(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift to the left by a number of pixels."""
    return _transform(pixels, (1, 0, shift.cpu().numpy(), 0, 1, 0))


def translate_y(pixels: Tensor, shift: Tensor) -> Tensor:
    """Shift upwards by a number of pixels."""
    return _transform(pixels, (1, 0, 0, 0, 1, shift.cpu().numpy()))


def _transform(pixels: Tensor, matrix: tuple[np.ndarray | float, ...]) -> Tensor:
    """Return pixels whose value at (x, y) is the source's at (ax + by + c, dx + ey + f).

    Args:
        pixels: (B, 3, H, W) uint8.
        matrix: (a, b, c, d, e, f), each a number or one number for each image, (B,).
    """
    count, channels, height, width = pixels.shape
    a, b, c, d, e, f = (np.broadcast_to(np.float64(entry), count) for entry in matrix)
    entries = np.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2])
    fixed = torch.from_numpy(np.floor(entries * UNIT + 0.5).astype(np.int32)).to(pixels.device)
    a, b, c, d, e, f = fixed[:, :, None, None]
    x = torch.arange(width, dtype=torch.int32, device=pixels.device)
    y = torch.arange(height, dtype=torch.int32, device=pixels.device)[:, None]
    columns, rows = (c + b * y + a * x) >> 16, (f + e * y + d * x) >> 16
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    places = torch.where(inside, rows * width + columns, 0).long().flatten(1)
    moved = pixels.flatten(2).gather(2, places[:, None].expand(-1, channels, -1))
    return moved.view(count, channels, height, width) * inside[:, None]
