"""What the GPU checks make of operations that are right, wrong, elsewhere or left out."""

from __future__ import annotations

import ctypes
import math
import struct
from typing import Any

import pytest

from curator.harness._driver import DriverError
from curator.harness._tensor import (
    Operations,
    compute,
    dlpack_address,
    expected_numbers,
    host_timed,
    measure,
    needed,
)
from tests.unit.test_numbers import ONE, TYPES, rounded


class Memory:
    """A driver whose GPU's memory is this process's."""

    missing = ""
    sm = "9.0"

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
        return {"gpu": {"sm": self.sm}, "cuda": "13.0", "driver": "580.95.05"}


class Plain(Operations):
    """Operations in plain Python; one of them can be made wrong."""

    dtypes: tuple[str, ...] = TYPES
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


@pytest.mark.parametrize("absent", TYPES)
def test_a_type_that_is_left_out_is_named(absent: str) -> None:
    memory = Memory()
    left = tuple(dtype for dtype in TYPES if dtype != absent)

    def make() -> Plain:
        made = Plain(memory)
        made.dtypes = left
        return made

    with pytest.raises(AssertionError, match=f"nothing was computed in {absent},"):
        compute(memory, make)  # type: ignore[arg-type]


def test_what_a_gpu_is_asked_for() -> None:
    deep, plain = Plain(Memory()), Operations()
    assert needed(deep, "7.5") == ["fp32", "fp16"]
    assert [needed(deep, sm) for sm in ("8.0", "9.0", "12.1")] == [list(TYPES)] * 3
    assert needed(plain, "12.0") == ["fp32"]


def test_an_operation_that_a_probe_lacks_is_an_error() -> None:
    memory = Memory()

    class Shallow(Plain):
        def conv(self, image: Any, filters: Any) -> Any:
            return Operations.conv(self, image, filters)

    with pytest.raises(NotImplementedError):
        compute(memory, lambda: Shallow(memory))  # type: ignore[arg-type]


def test_where_a_dlpack_capsule_has_its_data() -> None:
    tensor = struct.pack("<QiiiBBHQQQ", 0x7F0000001000, 2, 0, 2, 2, 32, 1, 0, 0, 0x240)
    block = ctypes.create_string_buffer(tensor)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    label = ctypes.c_char_p(b"dltensor")
    assert dlpack_address(new(ctypes.addressof(block), label, None)) == 0x7F0000001240
    used = ctypes.c_char_p(b"used_dltensor")
    with pytest.raises(ValueError, match="incorrect name"):
        dlpack_address(new(ctypes.addressof(block), used, None))


def test_time_on_the_host_waits_for_what_was_started() -> None:
    waited: list[str] = []
    assert host_timed(lambda: "started", waited.append) > 0
    assert waited == ["started"]


def test_rates_are_whole_numbers() -> None:
    memory = Memory()
    found = measure(memory, lambda: Plain(memory, ms=2.0))  # type: ignore[arg-type]
    assert found["matmul_fp32_gflops"] == int(2 * 4096**3 / 2e-3 / 1e9)
    assert found["copy_mb_s"] == int(2 * 256 * 2**20 / 2e-3 / 1e6)
