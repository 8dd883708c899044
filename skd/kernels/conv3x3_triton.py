"""Triton kernels of the 3x3 convolution with padding 1: the value and both gradients.

All maps are (N, H, W, channels) in memory, weights (K, 3, 3, C). Each kernel is a matrix product
over *patches*: the patch of an output pixel is its 3 x 3 x C input elements in the weights' order,
so that the weights are a plain (K, 9C) matrix. Patches are gathered block by block and never
written to memory. Products are accumulated in float32. Sizes that are not powers of two are masked.

With TRITON_INTERPRET=1 in the environment before the first import of triton, the kernels run on
the CPU.
"""

# Compile-time constants are in capitals, as is usual in Triton.
# ruff: noqa: ANN201, ANN202, N803

import triton
import triton.language as tl


@triton.jit
def _load_patches(x, image, top, left, j, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr):
    """Gather elements `j` of the patches with the given upper left corners: (pixels, elements).

    A corner is a row and a column of the input. Elements outside of the map are 0.
    """
    tap = j // C
    h = top[:, None] + (tap // 3)[None, :]
    w = left[:, None] + (tap % 3)[None, :]
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & (j < 9 * C)[None, :]
    # One addition per element: the corner's offset and the element's shift are vectors.
    corner = ((image * H + top) * W + left) * C
    shift = (tap // 3 * W + tap % 3) * C + j % C
    return tl.load(x + corner[:, None] + shift[None, :], mask=inside, other=0.0)


@triton.jit
def _add_product(total, a, b, PRECISION: tl.constexpr):
    """Add the matrix product of two blocks, both float32 or both bfloat16, to a float32 one."""
    if PRECISION == "ieee":
        # bfloat16 too: Triton's interpreter cannot multiply it.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _corners(p, pixels, OH: tl.constexpr, OW: tl.constexpr, STRIDE: tl.constexpr):
    """Return image, top row and left column of the patches of output pixels `p`."""
    top = p // OW % OH * STRIDE - 1
    # Pixels after the last one get a corner whose patch is entirely outside of the map.
    return p // (OH * OW), tl.where(p < pixels, top, -4), p % OW * STRIDE - 1


@triton.jit
def _add_patches(
    total, x, weight, image, top, left, j, k,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the products of elements `j` of the patches to (pixels, K)."""
    patches = _load_patches(x, image, top, left, j, H, W, C)
    inside = (j < 9 * C)[:, None] & (k < K)[None, :]
    weights = tl.load(weight + j[:, None] + k[None, :] * (9 * C), mask=inside, other=0.0)
    return _add_product(total, patches, weights, PRECISION)


@triton.jit
def forward_kernel(
    x, weight, y, pixels,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_PATCH: tl.constexpr, UNROLL: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """y[p, k] = sum over j of patch[p, j] weight[k, j]. Grid: (blocks of output pixels,)."""
    p = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    k = tl.arange(0, K_PADDED)
    element = tl.arange(0, BLOCK_PATCH)
    image, top, left = _corners(p, pixels, OH, OW, STRIDE)
    total = tl.zeros((BLOCK_PIXELS, K_PADDED), tl.float32)
    if UNROLL:
        for start in tl.static_range(0, 9 * C, BLOCK_PATCH):
            total = _add_patches(
                total, x, weight, image, top, left, start + element, k, H, W, C, K, PRECISION
            )
    else:
        for start in tl.range(0, 9 * C, BLOCK_PATCH):
            total = _add_patches(
                total, x, weight, image, top, left, start + element, k, H, W, C, K, PRECISION
            )
    inside = (p < pixels)[:, None] & (k < K)[None, :]
    tl.store(y + p[:, None] * K + k[None, :], total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _add_spread(
    total, dy, weight, image, row, column, j, c,
    OH: tl.constexpr, OW: tl.constexpr, C: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    ROW_TAP: tl.constexpr, COLUMN_TAP: tl.constexpr, ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the contribution of elements `j` to the input gradient (pixels, C).

    `j` numbers (row tap, column tap, k). `row` and `column` are the output pixel that the first tap
    reads; the next tap, STRIDE further in the weights, reads the output pixel before it.
    """
    elements: tl.constexpr = ROW_TAPS * COLUMN_TAPS * K
    tap, k = j // K, j % K
    a, b = tap // COLUMN_TAPS, tap % COLUMN_TAPS
    h = row[:, None] - a[None, :]
    w = column[:, None] - b[None, :]
    inside = (h >= 0) & (h < OH) & (w >= 0) & (w < OW) & (j < elements)[None, :]
    first = ((image * OH + row) * OW + column) * K
    shift = k - (a * OW + b) * K
    gradients = tl.load(dy + first[:, None] + shift[None, :], mask=inside, other=0.0)
    place = k * (9 * C) + ((ROW_TAP + a * STRIDE) * 3 + COLUMN_TAP + b * STRIDE) * C
    inside = (j < elements)[:, None] & (c < C)[None, :]
    weights = tl.load(weight + place[:, None] + c[None, :], mask=inside, other=0.0)
    return _add_product(total, gradients, weights, PRECISION)


@triton.jit
def _input_gradient_of_parity(
    dy, weight, dx, images, ROW_PARITY: tl.constexpr, COLUMN_PARITY: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, C_PADDED: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_PATCH: tl.constexpr, UNROLL: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a block of the pixels (STRIDE i + ROW_PARITY, STRIDE j + COLUMN_PARITY) of dx.

    All of these pixels use the same taps, so no tap is computed and then masked: at stride 2 a
    pixel uses 1, 2 or 4 of the 9.
    """
    rows: tl.constexpr = (H - ROW_PARITY + STRIDE - 1) // STRIDE
    columns: tl.constexpr = (W - COLUMN_PARITY + STRIDE - 1) // STRIDE
    # Tap r of row h reads output row (h + 1 - r) / STRIDE; row_tap is the first r that divides.
    row_tap: tl.constexpr = (ROW_PARITY + 1) % STRIDE
    column_tap: tl.constexpr = (COLUMN_PARITY + 1) % STRIDE
    row_taps: tl.constexpr = (2 - row_tap) // STRIDE + 1
    column_taps: tl.constexpr = (2 - column_tap) // STRIDE + 1
    if rows * columns > 0:  # a map of one row has no odd rows
        pixels = images * rows * columns
        p = tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
        c = tl.arange(0, C_PADDED)
        element = tl.arange(0, BLOCK_PATCH)
        image, i, j = p // (rows * columns), p // columns % rows, p % columns
        # Pixels after the last one get a row whose taps are all outside of the map.
        row = tl.where(p < pixels, i + (ROW_PARITY + 1 - row_tap) // STRIDE, -1)
        column = j + (COLUMN_PARITY + 1 - column_tap) // STRIDE
        total = tl.zeros((BLOCK_PIXELS, C_PADDED), tl.float32)
        if UNROLL:
            for start in tl.static_range(0, row_taps * column_taps * K, BLOCK_PATCH):
                total = _add_spread(
                    total, dy, weight, image, row, column, start + element, c, OH, OW, C, K,
                    STRIDE, row_tap, column_tap, row_taps, column_taps, PRECISION,
                )  # fmt: skip
        else:
            for start in tl.range(0, row_taps * column_taps * K, BLOCK_PATCH):
                total = _add_spread(
                    total, dy, weight, image, row, column, start + element, c, OH, OW, C, K,
                    STRIDE, row_tap, column_tap, row_taps, column_taps, PRECISION,
                )  # fmt: skip
        h, w = i * STRIDE + ROW_PARITY, j * STRIDE + COLUMN_PARITY
        place = ((image * H + h) * W + w) * C
        inside = (p < pixels)[:, None] & (c < C)[None, :]
        tl.store(dx + place[:, None] + c[None, :], total.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def input_gradient_kernel(
    dy, weight, dx, images,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, C_PADDED: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_PATCH: tl.constexpr, UNROLL: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dx = transposed convolution of dy by the weights. Grid: (blocks of pixels, STRIDE ** 2).

    The second axis is the parity of row and column. The first axis covers the pixels of even row
    and column, which are the most numerous.
    """
    if STRIDE == 1:
        _input_gradient_of_parity(
            dy, weight, dx, images, 0, 0, H, W, OH, OW, C, C_PADDED, K, STRIDE,
            BLOCK_PIXELS, BLOCK_PATCH, UNROLL, PRECISION,
        )  # fmt: skip
    else:
        # The parity with 4 taps comes first, so that the last programs to start are short.
        parity = tl.program_id(1)
        if parity == 0:
            _input_gradient_of_parity(
                dy, weight, dx, images, 1, 1, H, W, OH, OW, C, C_PADDED, K, STRIDE,
                BLOCK_PIXELS, BLOCK_PATCH, UNROLL, PRECISION,
            )  # fmt: skip
        elif parity == 1:
            _input_gradient_of_parity(
                dy, weight, dx, images, 0, 1, H, W, OH, OW, C, C_PADDED, K, STRIDE,
                BLOCK_PIXELS, BLOCK_PATCH, UNROLL, PRECISION,
            )  # fmt: skip
        elif parity == 2:
            _input_gradient_of_parity(
                dy, weight, dx, images, 1, 0, H, W, OH, OW, C, C_PADDED, K, STRIDE,
                BLOCK_PIXELS, BLOCK_PATCH, UNROLL, PRECISION,
            )  # fmt: skip
        else:
            _input_gradient_of_parity(
                dy, weight, dx, images, 0, 0, H, W, OH, OW, C, C_PADDED, K, STRIDE,
                BLOCK_PIXELS, BLOCK_PATCH, UNROLL, PRECISION,
            )  # fmt: skip


@triton.jit
def weight_gradient_kernel(
    x, dy, parts, pixels, steps,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    C: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_PATCH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """parts[i, k, j] = sum over the pixels p of chunk i of dy[p, k] patch[p, j].

    Grid: (chunks of `steps` blocks of output pixels, blocks of patch elements).
    """
    chunk = tl.program_id(0)
    j = tl.program_id(1) * BLOCK_PATCH + tl.arange(0, BLOCK_PATCH)
    k = tl.arange(0, K_PADDED)
    total = tl.zeros((K_PADDED, BLOCK_PATCH), tl.float32)
    for step in tl.range(0, steps):
        p = (chunk * steps + step) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
        image, top, left = _corners(p, pixels, OH, OW, STRIDE)
        patches = _load_patches(x, image, top, left, j, H, W, C)
        inside = (p < pixels)[None, :] & (k < K)[:, None]
        gradients = tl.load(dy + p[None, :] * K + k[:, None], mask=inside, other=0.0)
        total = _add_product(total, gradients, patches, PRECISION)
    inside = (k < K)[:, None] & (j < 9 * C)[None, :]
    place = (chunk * K + k[:, None]) * (9 * C) + j[None, :]
    tl.store(parts + place, total, mask=inside)


@triton.jit
def add_parts_kernel(
    parts, out, count, SIZE: tl.constexpr, BLOCK_PARTS: tl.constexpr, BLOCK: tl.constexpr
):
    """out[i] = sum over the parts of parts[., i], in a fixed order. Grid: (blocks of `out`,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK_PARTS, BLOCK), tl.float32)
    for first in tl.range(0, count, BLOCK_PARTS):
        part = first + tl.arange(0, BLOCK_PARTS)
        inside = (part < count)[:, None] & (i < SIZE)[None, :]
        total += tl.load(parts + part[:, None] * SIZE + i[None, :], mask=inside, other=0.0)
    tl.store(out + i, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=i < SIZE)
