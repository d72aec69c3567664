"""The right answers of GPU checks, and the comparison that nothing wrong gets through."""

from __future__ import annotations

import functools
import math
import random
import struct
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.harness import _numbers as numbers
from curator.harness._tensor import expected_numbers

TYPES = ("fp32", "fp16", "bf16")
ONE = {"fp32": ("<f", "<I"), "fp16": ("<e", "<H")}


def rounded(value: float, dtype: str) -> float:
    """Return a number as a type holds it."""
    if dtype == "bf16":
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        bits += 0x7FFF + (bits >> 16 & 1)
        found: float = struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]
        return found
    (found,) = struct.unpack(ONE[dtype][0], struct.pack(ONE[dtype][0], value))
    return found


@pytest.mark.parametrize("dtype", TYPES)
def test_terms_never_add_up_to_more_than_a_type_holds_exactly(dtype: str) -> None:
    most = 2 ** numbers.SIGNIFICAND_BITS[dtype]
    values, doubled = numbers.scale_case(dtype)
    assert max(abs(2 * value) + 1 for value in values) <= most
    assert doubled == [2 * value + 1 for value in values]
    values, (total,) = numbers.total_case(dtype)
    assert sum(map(abs, values)) <= most
    assert total == sum(map(Fraction, values))
    left, right, result = numbers.matmul_case(dtype)
    columns = list(zip(*right, strict=True))
    sums = [[sum(abs(a * b) for a, b in zip(r, c, strict=True)) for c in columns] for r in left]
    assert max(map(max, sums)) <= most
    exact = [
        sum(Fraction(a) * Fraction(b) for a, b in zip(r, c, strict=True))
        for r in left
        for c in columns
    ]
    assert result == exact
    assert max(map(abs, result)) > most / 20, "results are large enough to be wrong by 1 %"


def test_a_step_never_adds_up_to_more_than_fp32_holds_exactly() -> None:
    x, w, y, stepped = numbers.gradient_case()
    rest = [sum(abs(a * b[0]) for a, b in zip(r, w, strict=True)) + 4 for r in x]
    assert max(abs(value) for (value,) in y) <= 4
    terms = [sum(abs(r[k]) * q for r, q in zip(x, rest, strict=True)) for k in range(len(w))]
    # An eighth of a whole number has three more bits.
    assert 8 * max(map(abs, numbers.flat(w))) + max(terms) <= 2**24
    assert sum(value * value for value in rest) <= 2**24
    assert all((8 * value).is_integer() for value in stepped)


def summed(values: list[float], dtype: str, seed: int) -> float:
    """Add numbers in a drawn order, one by one or in pairs, each sum rounded as a type holds it."""
    order = random.Random(seed)  # noqa: S311 - an order, no secret
    left = list(values)
    order.shuffle(left)
    if seed % 2:
        return functools.reduce(lambda a, b: rounded(a + b, dtype), left)
    while len(left) > 1:
        pairs = order.randint(1, len(left) // 2)
        ends = left[2 * pairs :]
        found = [rounded(left[k] + left[k + pairs], dtype) for k in range(pairs)]
        left = found + ends
    return left[0]


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_sums_are_exact_in_any_order(dtype: str, seed: int) -> None:
    values, (total,) = numbers.total_case(dtype)
    assert summed([value for value in values if value], dtype, seed) == total


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_products_are_exact_in_any_order(dtype: str, seed: int) -> None:
    left, right, result = numbers.matmul_case(dtype)
    place = seed % len(result)
    i, j = divmod(place, numbers.SIDE)
    terms = [a * row[j] for a, row in zip(left[i], right, strict=True)]
    assert [rounded(term, dtype) for term in terms] == terms
    assert summed(terms, dtype, seed) == result[place]


@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_are_what_a_type_holds(dtype: str) -> None:
    given_ = [numbers.scale_case(dtype)[0], numbers.total_case(dtype)[0]]
    given_ += [numbers.flat(list(side)) for side in numbers.matmul_case(dtype)[:2]]
    if dtype != "bf16":
        given_ += [numbers.flat(side) for side in numbers.conv_case()[:2]]
    for values in (*given_, *(expected_numbers(c, dtype)[0] for c in ("scale", "total", "matmul"))):
        assert [rounded(value, dtype) for value in values] == values


def test_factors_are_exact_in_tf32() -> None:
    left, right, _ = numbers.matmul_case("fp32")
    assert max(abs(value) for row in left + right for value in row) < 2**11
    x, w, y, _ = numbers.gradient_case()
    factors = numbers.flat(x) + numbers.flat(w)
    rest = [p[0] - q[0] for p, q in zip(numbers.product(x, w), y, strict=True)]
    assert max(map(abs, factors + rest)) < 2**11


@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_are_of_both_signs_and_use_their_range(dtype: str) -> None:
    values, _ = numbers.scale_case(dtype)
    most = 2 ** (numbers.SIGNIFICAND_BITS[dtype] - 2) - 1
    assert -most <= min(values) < -0.9 * most
    assert 0.9 * most < max(values) <= most
    assert abs(sum(values)) < most * len(values) / 20
    values, (total,) = numbers.total_case(dtype)
    assert total, "what adds nothing up is no right answer"
    assert {value > 0 for value in values if value} == {True, False}


def test_exponentials_against_decimal_arithmetic() -> None:
    values, found = numbers.exp_case()
    assert (min(values), max(values)) == (-4.0, 4.0)
    with localcontext(prec=40):
        for value, near in zip(values, found, strict=True):
            exact = Decimal(value).exp()
            assert abs(Decimal(near) - exact) <= exact * Decimal(2) ** -51


def test_convolution_and_step_against_exact_arithmetic() -> None:
    (image,), filters, result = numbers.conv_case()
    side = numbers.PIXELS - numbers.TAPS + 1
    # The other way round: each pixel is added to every result that it is part of.
    exact = [Fraction(0)] * (len(filters) * side * side)
    pixels = range(numbers.PIXELS)
    for f, c, row, column in product(range(len(filters)), range(len(image)), pixels, pixels):
        for u, v in product(range(numbers.TAPS), repeat=2):
            i, j = row - u, column - v
            if 0 <= i < side and 0 <= j < side:
                exact[(f * side + i) * side + j] += Fraction(image[c][row][column]) * Fraction(
                    filters[f][c][u][v]
                )
    assert result == exact
    terms = numbers.CHANNELS * numbers.TAPS**2
    assert terms * 2 * 2 == 144, "as the module says"
    assert max(map(abs, result)) > 144 / 4
    x, w, y, stepped = numbers.gradient_case()
    rest = [
        sum(a * b[0] for a, b in zip(row, w, strict=True)) - q
        for row, (q,) in zip(x, y, strict=True)
    ]
    for k, found in enumerate(stepped):
        gradient = sum(Fraction(row[k]) * Fraction(r) for row, r in zip(x, rest, strict=True))
        assert found == Fraction(w[k][0]) - gradient / 8


@pytest.mark.parametrize("dtype", TYPES)
def test_memory_is_read_as_its_type(dtype: str) -> None:
    values = [0.0, -1.5, 64.0, 0.15625]
    if dtype == "bf16":
        data = b"".join(struct.pack("<f", value)[2:] for value in values)
    else:
        data = b"".join(struct.pack(ONE[dtype][0], value) for value in values)
    assert numbers.decoded(data, dtype) == values


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_every_number_of_two_bytes_is_read(dtype: str) -> None:
    bits = range(2**16)
    found = numbers.decoded(struct.pack("<65536H", *bits), dtype)
    # Sign, exponent and fraction, as IEEE 754 has them; bf16 is the upper half of an fp32.
    wide, bias = (5, 15) if dtype == "fp16" else (8, 127)
    fraction = 15 - wide
    for one, value in zip(bits, found, strict=True):
        sign = -1.0 if one >> 15 else 1.0
        exponent, rest = one >> fraction & 2**wide - 1, one & 2**fraction - 1
        if exponent == 2**wide - 1:
            assert math.isnan(value) if rest else value == sign * math.inf
        else:
            normal = 2**fraction if exponent else 0
            right = sign * math.ldexp(rest + normal, max(exponent, 1) - bias - fraction)
            assert (value, math.copysign(1, value)) == (right, sign)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_numbers_of_four_bytes_are_read(values: list[float]) -> None:
    assert numbers.decoded(struct.pack(f"<{len(values)}f", *values), "fp32") == values


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", ["scale", "total", "matmul"])
def test_one_unit_in_the_last_place_is_found(case: str, dtype: str) -> None:
    right, bound, relative = expected_numbers(case, dtype)
    for place in {0, len(right) // 2, len(right) - 1}:
        for way in (1, -1):
            exponent = math.frexp(right[place])[1] - numbers.SIGNIFICAND_BITS[dtype]
            got = list(right)
            got[place] += way * math.ldexp(1.0, exponent)
            assert rounded(got[place], dtype) == got[place] != right[place]
            with pytest.raises(AssertionError, match=f"number {place} is "):
                numbers.compare(case, got, right, bound, relative=relative)


@pytest.mark.parametrize(
    "wrong", [1.01, 1 + 2**-23, math.nan, math.inf, -1.0, 0.0], ids=lambda value: f"x{value}"
)
@pytest.mark.parametrize("case", ["scale", "total", "matmul"])
def test_one_wrong_number_is_found(case: str, wrong: float) -> None:
    right, bound, relative = expected_numbers(case, "fp32")
    worst = max(range(len(right)), key=lambda index: abs(right[index]))
    got = list(right)
    got[worst] *= wrong
    with pytest.raises(AssertionError, match=case):
        numbers.compare(case, got, right, bound, relative=relative)
    with pytest.raises(AssertionError, match="numbers, not"):
        numbers.compare(case, got[:-1], right, bound, relative=relative)


def test_bounds_let_rounding_through_and_nothing_else() -> None:
    right, bound, relative = expected_numbers("exp", "fp32")
    near = [value * (1 + 2**-19) for value in right]
    assert numbers.compare("exp", near, right, bound, relative=relative) == f"{2**-19:.3g}"
    with pytest.raises(AssertionError):
        numbers.compare("exp", [v * 1.0001 for v in right], right, bound, relative=relative)
    right, bound, relative = expected_numbers("conv", "fp16")
    with pytest.raises(AssertionError):
        numbers.compare("conv", [v * 1.01 for v in right], right, bound, relative=relative)
