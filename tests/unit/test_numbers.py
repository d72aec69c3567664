"""The right answers of GPU checks, and the comparison that nothing wrong gets through."""

from __future__ import annotations

import ctypes
import math
import random
import struct
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.harness import _numbers as numbers
from curator.harness._driver import DriverError
from curator.harness._tensor import Operations, compute, expected_numbers, measure

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
    left, right, product = numbers.matmul_case(dtype)
    columns = list(zip(*right, strict=True))
    sums = [[sum(abs(a * b) for a, b in zip(r, c, strict=True)) for c in columns] for r in left]
    assert max(map(max, sums)) <= most
    exact = [
        sum(Fraction(a) * Fraction(b) for a, b in zip(r, c, strict=True))
        for r in left
        for c in columns
    ]
    assert product == exact
    assert max(map(abs, product)) > most / 20, "results are large enough to be wrong by 1 %"


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_sums_are_exact_in_any_order(dtype: str, seed: int) -> None:
    values, (total,) = numbers.total_case(dtype)
    shuffled = [value for value in values if value]
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, no secret
    found = 0.0
    for value in shuffled:
        found = rounded(found + value, dtype)
    assert found == total


def test_inputs_are_exact_in_tf32() -> None:
    left, right, _ = numbers.matmul_case("fp32")
    assert max(abs(value) for row in left + right for value in row) < 2**11


def test_convolution_and_step_against_exact_arithmetic() -> None:
    (image,), filters, result = numbers.conv_case()
    side = numbers.PIXELS - numbers.TAPS + 1
    assert len(result) == len(filters) * side * side
    place = (3, 4, 5)
    f, i, j = place
    by_hand = 0.0
    for c, kernel in enumerate(filters[f]):
        for u, taps in enumerate(kernel):
            for v, tap in enumerate(taps):
                by_hand += image[c][i + u][j + v] * tap
    assert result[(f * side + i) * side + j] == by_hand
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


class Memory:
    """A driver whose GPU's memory is this process's."""

    missing = ""

    def __init__(self, *, grows: bool = True) -> None:
        self.blocks: dict[int, Any] = {}
        self.grows = grows

    def put(self, values: list[float], dtype: str) -> Any:
        if dtype == "bf16":
            data = b"".join(struct.pack("<f", rounded(value, dtype))[2:] for value in values)
        else:
            data = struct.pack(f"<{len(values)}{ONE[dtype][0][1]}", *values)
        block = ctypes.create_string_buffer(data, len(data))
        self.blocks[ctypes.addressof(block)] = block
        return block

    def memory_used(self) -> int:
        return sum(map(len, self.blocks.values())) + 2**27 * bool(self.blocks) if self.grows else 0

    def read(self, pointer: int, size: int) -> bytes:
        if pointer not in self.blocks:
            raise DriverError("the result is not in a GPU's memory")
        found: bytes = self.blocks[pointer].raw[:size]
        return found

    def facts(self) -> dict[str, Any]:
        return {"gpu": {}, "cuda": "13.0", "driver": "580.95.05"}


class Plain(Operations):
    """Operations in plain Python; one of them can be made wrong."""

    dtypes = TYPES
    deep = True

    def __init__(self, memory: Memory, wrong: str = "", ms: float = 1.0) -> None:
        self.memory, self.wrong, self.ms = memory, wrong, ms

    def put(self, numbers_: list[Any], dtype: str) -> Any:
        return numbers_, dtype

    def random(self, shape: tuple[int, ...], dtype: str) -> Any:
        assert shape
        return self.memory.put([1.0], dtype)

    def _result(self, case: str, dtype: str) -> Any:
        right = list(expected_numbers(case, dtype)[0])
        if self.wrong == f"{case} {dtype}":
            right[-1] += max(1.0, abs(right[-1]) / 50)
        if self.wrong == f"elsewhere {case}":
            return ctypes.create_string_buffer(4 * len(right))
        return self.memory.put(right, dtype)

    def scale(self, x: Any) -> Any:
        return self._result("scale", x[1])

    def exp(self, x: Any) -> Any:
        return self._result("exp", x[1])

    def total(self, x: Any) -> Any:
        return self._result("total", x[1])

    def matmul(self, a: Any, b: Any) -> Any:
        assert b is not None
        return self._result("matmul", a[1]) if isinstance(a, tuple) else None

    def conv(self, image: Any, filters: Any) -> Any:
        assert filters
        return self._result("conv", image[1])

    def step(self, x: Any, w: Any, y: Any) -> Any:
        assert w
        assert y
        return self._result("step", x[1])

    def copy(self, x: Any) -> Any:
        return x

    def address(self, array: Any) -> int:
        return ctypes.addressof(array)

    def timed(self, function: Any) -> float:
        function()
        return self.ms


CASES = [f"{case} {dtype}" for dtype in TYPES for case in ("scale", "total", "matmul")]
CASES += ["exp fp32", "conv fp32", "conv fp16", "step fp32"]


def computed(memory: Memory, **options: Any) -> dict[str, Any]:
    return compute(memory, lambda: Plain(memory, **options))  # type: ignore[arg-type]


def test_everything_that_is_right_passes() -> None:
    found = computed(Memory())
    assert sorted(found["differences"]) == sorted(CASES)
    assert found["device"] == "cuda"
    assert found["bounds"]["matmul bf16"] == "0"
    assert found["bounds"]["exp fp32"] == f"{2**-18:.3g} of the value"


@pytest.mark.parametrize("case", CASES)
def test_each_wrong_operation_is_named(case: str) -> None:
    with pytest.raises(AssertionError, match=f"{case}: number"):
        computed(Memory(), wrong=case)


def test_results_elsewhere_and_a_gpu_that_did_nothing_are_refused() -> None:
    with pytest.raises(DriverError, match="not in a GPU's memory"):
        computed(Memory(), wrong="elsewhere matmul")
    with pytest.raises(AssertionError, match="memory grew by 0 bytes"):
        computed(Memory(grows=False))
    for ms in (0.0, -1.0, math.nan):
        with pytest.raises(AssertionError, match="for a matrix product"):
            computed(Memory(), ms=ms)


def test_rates_are_whole_numbers() -> None:
    memory = Memory()
    found = measure(memory, lambda: Plain(memory, ms=2.0))  # type: ignore[arg-type]
    assert found["matmul_fp32_gflops"] == int(2 * 4096**3 / 2e-3 / 1e9)
    assert found["copy_mb_s"] == int(2 * 256 * 2**20 / 2e-3 / 1e6)
