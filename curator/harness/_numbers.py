"""What GPU checks compute, and the right answers, worked out in plain Python.

The data are whole numbers, drawn by a fixed generator and kept so small that the magnitudes of all
terms of any one result add up to at most 2**p, where p is the number of significand bits of the
type it is computed in (24 for fp32, 11 for fp16, 8 for bf16). Then every partial sum, in any order,
is exact, and a matrix product in TF32 too, whose 11 bits hold its inputs: a right answer is an
equal one, and the bound is 0. Two cases cannot be exact and have bounds of their own:

- exp: 2**-18 of the value. CUDA's own expf is within 2 units in the last place (2**-22), compilers
  of frameworks use shorter polynomials.
- convolution, whose results go up to 144: 2**-6 in fp32, and in fp16 2**-3, one unit in the last
  place there. cuDNN may choose Winograd's or Fourier transforms, which leave whole numbers on the
  way.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Dict, List, Tuple

SIGNIFICAND_BITS = {"fp32": 24, "fp16": 11, "bf16": 8}
ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
MATMUL_MOST = {"fp32": 500, "fp16": 5, "bf16": 2}
SIDE = 64
COUNT = 4096
EXP_BOUND = 2.0**-18
CONV_BOUNDS = {"fp32": 2.0**-6, "fp16": 2.0**-3}
CHANNELS, FILTERS, PIXELS, TAPS = 4, 8, 12, 3
SAMPLES, WEIGHTS = 16, 8

Vector = List[float]
Matrix = List[Vector]
Differences = Dict[str, str]


def whole(count: int, most: int, seed: int) -> Vector:
    """Return whole numbers from -most to most, the same for a seed everywhere.

    The generator is the linear congruential one of ISO C's example `rand`, whose upper bits are its
    best: only a range that is wider than they are takes all of them.
    """
    state, values, span = seed, [], 2 * most + 1
    drop = 16 if span <= 2**15 else 0
    for _ in range(count):
        state = (1103515245 * state + 12345) % 2**31
        values.append(float((state >> drop) % span - most))
    return values


def rows(values: Vector, width: int) -> Matrix:
    """Return a flat list as rows of this width."""
    return [values[start : start + width] for start in range(0, len(values), width)]


def flat(nested: Any) -> Vector:
    """Return the numbers of nested lists, the last index running fastest."""
    if not isinstance(nested, list):
        return [nested]
    return [value for item in nested for value in flat(item)]


def product(left: Matrix, right: Matrix) -> Matrix:
    """Return a matrix product."""
    columns = list(zip(*right))
    return [[sum(a * b for a, b in zip(row, column)) for column in columns] for row in left]


def scale_case(dtype: str) -> Tuple[Vector, Vector]:
    """Return numbers and 2x + 1 of each."""
    values = whole(COUNT, 2 ** (SIGNIFICAND_BITS[dtype] - 2) - 1, 11)
    return values, [2 * value + 1 for value in values]


def total_case(dtype: str) -> Tuple[Vector, Vector]:
    """Return numbers and their sum: with 8 bits only a few of them may differ from 0."""
    most = max(2 ** SIGNIFICAND_BITS[dtype] // COUNT, 1)
    live = min(2 ** SIGNIFICAND_BITS[dtype] // most, COUNT)
    values = whole(live, most, 12)
    spread = [0.0] * COUNT
    spread[:: COUNT // live] = values
    return spread, [sum(values)]


def matmul_case(dtype: str) -> Tuple[Matrix, Matrix, Vector]:
    """Return two matrices and their product."""
    most = MATMUL_MOST[dtype]
    left = rows(whole(SIDE * SIDE, most, 13), SIDE)
    right = rows(whole(SIDE * SIDE, most, 14), SIDE)
    return left, right, flat(product(left, right))


def exp_case() -> Tuple[Vector, Vector]:
    """Return numbers from -4 to 4 and e to the power of each."""
    values = [value / 64 for value in whole(COUNT, 256, 15)]
    return values, [math.exp(value) for value in values]


def conv_case() -> Tuple[List[Any], List[Any], Vector]:
    """Return an image, filters, and the valid cross-correlation that frameworks call convolution.

    Shapes: (1, channels, pixels, pixels), (filters, channels, taps, taps); the result is
    (1, filters, pixels - taps + 1, pixels - taps + 1).
    """
    image = rows(whole(CHANNELS * PIXELS * PIXELS, 2, 16), PIXELS)
    taps = rows(whole(FILTERS * CHANNELS * TAPS * TAPS, 2, 17), TAPS)
    planes = [image[start : start + PIXELS] for start in range(0, len(image), PIXELS)]
    kernels = [taps[start : start + TAPS] for start in range(0, len(taps), TAPS)]
    filters = [kernels[start : start + CHANNELS] for start in range(0, len(kernels), CHANNELS)]
    side = PIXELS - TAPS + 1
    result = [
        sum(
            planes[c][i + u][j + v] * one[c][u][v]
            for c in range(CHANNELS)
            for u in range(TAPS)
            for v in range(TAPS)
        )
        for one in filters
        for i in range(side)
        for j in range(side)
    ]
    return [planes], filters, result


def gradient_case() -> Tuple[Matrix, Matrix, Matrix, Vector]:
    """Return x, w, y and w after one step down the gradient of sum((xw - y)**2) / 2, rate 1/8."""
    x = rows(whole(SAMPLES * WEIGHTS, 2, 18), WEIGHTS)
    w = rows(whole(WEIGHTS, 2, 19), 1)
    y = rows(whole(SAMPLES, 4, 20), 1)
    rest = [[p - q for p, q in zip(*pair)] for pair in zip(product(x, w), y)]
    gradient = product([list(column) for column in zip(*x)], rest)
    return x, w, y, [a - b / 8 for a, b in zip(flat(w), flat(gradient))]


def decoded(data: bytes, dtype: str) -> Vector:
    """Return the numbers of a GPU's memory, little-endian."""
    if dtype == "bf16":
        pairs = [data[start : start + 2] for start in range(0, len(data), 2)]
        return [struct.unpack("<f", b"\0\0" + pair)[0] for pair in pairs]
    code = {"fp32": "f", "fp16": "e"}[dtype]
    return list(struct.unpack(f"<{len(data) // ITEM_BYTES[dtype]}{code}", data))


def compare(name: str, got: Vector, right: Vector, bound: float, *, relative: bool) -> str:
    """Return the largest difference as text.

    Raises:
        AssertionError: a number is missing, not finite, or further off than the bound.
    """
    if len(got) != len(right):
        raise AssertionError(f"{name}: {len(got)} numbers, not {len(right)}")
    worst = 0.0
    for number, (found, want) in enumerate(zip(got, right)):
        limit = bound * abs(want) if relative else bound
        off = abs(found - want)
        if not off <= limit:  # not "off > limit": NaN is no number within a bound
            raise AssertionError(
                f"{name}: number {number} is {found!r}, right is {want!r}, bound {limit:.3g}"
            )
        worst = max(worst, off / abs(want) if relative and want else off)
    return f"{worst:.3g}"
