"""The Triton kernels of `instance_norm`; a grid of (rows, parts): a row is a channel of a sample, a part a run of it.

Sums are taken of differences from the row's first value, so that a mean far from zero costs the variance no digits.
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def sums(x, partial, length, parts, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum and sum of squares of each part of each row."""
    row, number = tl.program_id(0), tl.program_id(1)
    x += row.to(tl.int64) * length
    shift = tl.load(x).to(tl.float32)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    for step in range(STEPS):
        at = (number * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < length, other=0.0).to(tl.float32)
        value = tl.where(at < length, value - shift, 0.0)
        first += value
        second += value * value
    partial += (row * parts + number) * 2
    tl.store(partial, tl.sum(first, 0))
    tl.store(partial + 1, tl.sum(second, 0))


@triton.jit
def normalise(
    x,
    y,
    partial,
    moments,
    weight,
    bias,
    channels,
    length,
    parts,
    eps,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The row's mean and inverse deviation of the parts' sums, kept in `moments`; then the part itself, normalised."""
    row, number = tl.program_id(0), tl.program_id(1)
    x += row.to(tl.int64) * length
    y += row.to(tl.int64) * length
    each = tl.arange(0, PARTS)
    sums_at = partial + (row * parts + each) * 2
    mean = tl.sum(tl.load(sums_at, mask=each < parts, other=0.0), 0) / length
    square = tl.sum(tl.load(sums_at + 1, mask=each < parts, other=0.0), 0) / length
    inverse = tl.rsqrt(tl.maximum(square - mean * mean, 0.0) + eps)
    mean += tl.load(x).to(tl.float32)
    if number == 0:
        tl.store(moments + 2 * row, mean)
        tl.store(moments + 2 * row + 1, inverse)
    scale = inverse * tl.load(weight + row % channels).to(tl.float32)
    offset = tl.load(bias + row % channels).to(tl.float32) - mean * scale
    for step in range(STEPS):
        at = (number * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < length, other=0.0).to(tl.float32)
        tl.store(y + at, (value * scale + offset).to(y.dtype.element_ty), mask=at < length)


@triton.jit
def gradient_sums(x, g, partial, moments, length, parts, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of the gradient, and of its product with the normalised values, over each part of each row."""
    row, number = tl.program_id(0), tl.program_id(1)
    x += row.to(tl.int64) * length
    g += row.to(tl.int64) * length
    mean, inverse = tl.load(moments + 2 * row), tl.load(moments + 2 * row + 1)
    first = tl.zeros((BLOCK,), tl.float32)
    second = tl.zeros((BLOCK,), tl.float32)
    for step in range(STEPS):
        at = (number * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < length, other=0.0).to(tl.float32)
        slope = tl.load(g + at, mask=at < length, other=0.0).to(tl.float32)
        first += slope
        second += slope * (value - mean) * inverse
    partial += (row * parts + number) * 2
    tl.store(partial, tl.sum(first, 0))
    tl.store(partial + 1, tl.sum(second, 0))


@triton.jit
def gradient(
    x,
    g,
    dx,
    partial,
    moments,
    whole,
    weight,
    channels,
    length,
    parts,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Gradient of the input; the row's two sums, kept in `whole`, are those of bias and weight."""
    row, number = tl.program_id(0), tl.program_id(1)
    x += row.to(tl.int64) * length
    g += row.to(tl.int64) * length
    dx += row.to(tl.int64) * length
    each = tl.arange(0, PARTS)
    sums_at = partial + (row * parts + each) * 2
    first = tl.sum(tl.load(sums_at, mask=each < parts, other=0.0), 0)
    second = tl.sum(tl.load(sums_at + 1, mask=each < parts, other=0.0), 0)
    if number == 0:
        tl.store(whole + 2 * row, first)
        tl.store(whole + 2 * row + 1, second)
    mean, inverse = tl.load(moments + 2 * row), tl.load(moments + 2 * row + 1)
    scale = inverse * tl.load(weight + row % channels).to(tl.float32)
    first, second = first / length, second / length
    for step in range(STEPS):
        at = (number * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(x + at, mask=at < length, other=0.0).to(tl.float32)
        slope = tl.load(g + at, mask=at < length, other=0.0).to(tl.float32)
        value = scale * (slope - first - (value - mean) * inverse * second)
        tl.store(dx + at, value.to(dx.dtype.element_ty), mask=at < length)
