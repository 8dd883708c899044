"""The operations of RandAugment and TrivialAugment on whole batches, with PIL's exact pixels.

Each operation takes pixels (B, 3, H, W) uint8 and one strength for each image, (B,) float64. All
arithmetic is in integers, or in single floating-point operations that IEEE 754 rounds exactly. So
an image's result does not depend on its batch, nor on the device. torchvision's functions take one
strength for all images of a call and round differently on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skd.data.augmentation.geometry import rotate, shear_x, shear_y, translate_x, translate_y

Operation = Callable[[Tensor, Tensor], Tensor]
CUTOUT_COLOUR = (125, 123, 114)


def identity(pixels: Tensor, strength: Tensor) -> Tensor:
    """Return the pixels."""
    return pixels


def brightness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with black. Strength 0 is black, and 1 is the image."""
    return _blend(torch.zeros_like(pixels), pixels, strength)


def colour(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with the grey image. Strength 0 is grey, and 1 is the image."""
    return _blend(_grey(pixels).to(torch.uint8), pixels, strength)


def contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with the mean of the grey image. Strength 0 is uniform, and 1 is the image."""
    grey = _grey(pixels).flatten(1)
    count = grey.shape[1]
    mean = (2 * grey.sum(dim=1, dtype=torch.int64) + count) // (2 * count)  # rounded
    return _blend(mean.to(torch.uint8).view(-1, 1, 1, 1), pixels, strength)


def sharpness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Blend with a smoothed image. Strength 0 is smooth, and 1 is the image."""
    if min(pixels.shape[2:]) < 3:
        return pixels
    values = pixels.to(torch.int32)
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * values[:, :, 1:-1, 1:-1]
    smooth = pixels.clone()  # the border is not smoothed
    smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)  # total / 13, rounded
    return _blend(smooth, pixels, strength)


def posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Keep the highest bits of each value; the strength is their number, rounded down, from 1."""
    bits = strength.to(torch.int32).clamp(1, 8)
    mask = (256 - torch.pow(2, 8 - bits)).to(torch.uint8)
    return pixels & mask.view(-1, 1, 1, 1)


def solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Invert the values that are not below the strength."""
    return torch.where(pixels < strength.view(-1, 1, 1, 1), pixels, 255 - pixels)


def auto_contrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Stretch each channel to 0…255. A channel with one value stays. There is no strength."""
    flat = pixels.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    # A number divided by a tensor would be its reciprocal times the number, which rounds twice.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    values = _levels(pixels).double() * scale
    table = (values - low * scale).clamp(0, 255).to(torch.uint8)
    return _look_up(torch.where(high > low, table, _levels(pixels).to(torch.uint8)), pixels)


def equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Flatten the histogram of each channel. There is no strength."""
    flat, levels = pixels.flatten(2).long(), _levels(pixels)
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.int32, device=pixels.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat, dtype=torch.int32))
    brightest = torch.where(counts > 0, levels, 0).amax(2, keepdim=True)
    step = (flat.shape[2] - counts.gather(2, brightest)) // 255
    below = counts.cumsum(2, dtype=torch.int32) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return _look_up(torch.where(step > 0, table, levels).to(torch.uint8), pixels)


def cutout(pixels: Tensor, row: Tensor, column: Tensor, width: Tensor) -> Tensor:
    """Paint a square, as MLKD's authors do; it ends at the image's border.

    Args:
        pixels: (B, 3, H, W) uint8.
        row, column: of its centre, (B,) float64.
        width: of the square, (B,) float64; 0 paints nothing.
    """
    height, length = pixels.shape[2:]

    def covered(centre: Tensor, size: int) -> Tensor:
        # Their square starts half a width before the centre, and ends a width after its start,
        # both inclusive and rounded down.
        first = (centre - width / 2).clamp(min=0).floor()
        last = (first + width).clamp(max=size).floor()
        places = torch.arange(size, device=pixels.device)
        return (places >= first[:, None]) & (places <= last[:, None])

    inside = covered(row, height)[:, :, None] & covered(column, length)[:, None]
    inside &= (width > 0)[:, None, None]
    paint = torch.tensor(CUTOUT_COLOUR, dtype=torch.uint8, device=pixels.device).view(1, 3, 1, 1)
    return torch.where(inside[:, None], paint, pixels)


def _grey(pixels: Tensor) -> Tensor:
    """Return the luma of ITU-R 601-2, (B, 1, H, W) int32, in PIL's fixed-point numbers."""
    red, green, blue = pixels.to(torch.int32).unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).unsqueeze(1)


def _blend(zero: Tensor, one: Tensor, share: Tensor) -> Tensor:
    """Return zero + share · (one - zero) in float32, clamped and rounded down."""
    start = zero.to(torch.int16)
    # Two operations: a fused one would round once, on some devices only.
    change = share.float().view(-1, 1, 1, 1) * (one - start).float()
    return (start.float() + change).clamp(0, 255).to(torch.uint8)


def _levels(pixels: Tensor) -> Tensor:
    return torch.arange(256, device=pixels.device)


def _look_up(table: Tensor, pixels: Tensor) -> Tensor:
    """Return each value's entry in the table of its image and channel, (B, 3, 256)."""
    table = table.expand(*pixels.shape[:2], 256)
    return table.gather(2, pixels.flatten(2).long()).view_as(pixels)


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "brightness": brightness,
    "colour": colour,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
