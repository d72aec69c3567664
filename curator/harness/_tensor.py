"""The computation on the GPU, the same for every framework, checked from outside of it.

A framework's probe brings its operations as an object (`Operations` says which). The inputs go in
through the framework; the results are read out of the GPU's memory by the driver, at the address
where the framework keeps them: an array that is not in a GPU's memory cannot pass.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any, Callable, List, Tuple

from curator.harness._driver import Driver
from curator.harness._numbers import (
    CONV_BOUNDS,
    EXP_BOUND,
    ITEM_BYTES,
    Differences,
    Vector,
    compare,
    conv_case,
    decoded,
    exp_case,
    gradient_case,
    matmul_case,
    scale_case,
    total_case,
)
from curator.harness._run import CHECKS, Facts

BALLAST = 16 * 1024 * 1024  # numbers of fp32: 64 MiB
SPEED_SIDE = 4096
SPEED_BYTES = 256 * 1024 * 1024
SPEED_RUNS = 20
SPEED_SECONDS = 4.0


class Operations:
    """What a probe brings; arrays are the framework's own, on the GPU and in row-major order.

    `dtypes` names what it computes in, `fp32` first. `timed` calls a function and returns the
    milliseconds the GPU worked on it. `conv` and `step` are for deep-learning frameworks: a probe
    that has them says `deep = True`.
    """

    dtypes: Tuple[str, ...] = ("fp32",)
    deep = False
    timer = "events"

    def put(self, numbers: List[Any], dtype: str) -> Any:
        """Return nested lists as an array."""
        raise NotImplementedError

    def random(self, shape: Tuple[int, ...], dtype: str) -> Any:
        """Return an array of random numbers from 0 to 1."""
        raise NotImplementedError

    def scale(self, x: Any) -> Any:
        """Return 2x + 1."""
        raise NotImplementedError

    def exp(self, x: Any) -> Any:
        """Return e to the power of each number."""
        raise NotImplementedError

    def total(self, x: Any) -> Any:
        """Return the sum, an array of one number."""
        raise NotImplementedError

    def matmul(self, a: Any, b: Any) -> Any:
        """Return the matrix product."""
        raise NotImplementedError

    def conv(self, image: Any, filters: Any) -> Any:
        """Return the valid cross-correlation of (1, C, H, W) with (F, C, h, w)."""
        raise NotImplementedError

    def step(self, x: Any, w: Any, y: Any) -> Any:
        """Return w - g / 8, g the framework's own gradient of sum((xw - y)**2) / 2 for w."""
        raise NotImplementedError

    def copy(self, x: Any) -> Any:
        """Return a copy in the GPU's memory."""
        raise NotImplementedError

    def address(self, array: Any) -> int:
        """Return where the first number of an array stands."""
        raise NotImplementedError

    def timed(self, function: Callable[[], Any]) -> float:
        """Return the milliseconds the GPU worked on what a function starts."""
        raise NotImplementedError


def compute(driver: Driver, make: Callable[[], Operations]) -> Facts:
    """Run every case and return what was measured.

    Raises:
        AssertionError: wrong numbers, or nothing happened on the GPU.
        DriverError: there is no GPU, or a result is not in its memory.
    """
    before = driver.memory_used() if not driver.missing else 0
    ops = make()
    ballast = ops.random((BALLAST,), "fp32")
    differences: Differences = {}
    for dtype in ops.dtypes:
        _plain_cases(driver, ops, dtype, differences)
    _check(driver, ops, differences, "exp fp32", ops.exp(ops.put(exp_case()[0], "fp32")))
    if ops.deep:
        _deep_cases(driver, ops, differences)
    grew = driver.memory_used() - before
    if grew < BALLAST * ITEM_BYTES["fp32"]:
        raise AssertionError(f"the GPU's memory grew by {grew} bytes: the arrays are elsewhere")
    left, right = (ops.put(side, "fp32") for side in matmul_case("fp32")[:2])
    ms = ops.timed(lambda: ops.matmul(left, right))
    if not ms > 0:
        raise AssertionError(f"the GPU took {ms} ms for a matrix product")
    del ballast
    facts = driver.facts()
    absent = [dtype for dtype in needed(ops, facts["gpu"]["sm"]) if dtype not in ops.dtypes]
    if absent:
        raise AssertionError(f"nothing was computed in {', '.join(absent)}, which this GPU has")
    return {
        "device": "cuda",
        **facts,
        "memory_grew": grew,
        "matmul_ns": int(ms * 1e6),
        "timer": ops.timer,
        "differences": differences,
        "bounds": {name: bound_text(*name.split()) for name in differences},
    }


def needed(ops: Operations, sm: str) -> List[str]:
    """Return the types that no probe may leave out on a GPU of this compute capability.

    Source: CUDA C++ programming guide, "Features and technical specifications": bf16 from 8.0 on.
    """
    if not ops.deep:
        return ["fp32"]
    return ["fp32", "fp16", "bf16"] if int(sm.partition(".")[0]) >= 8 else ["fp32", "fp16"]


def _plain_cases(driver: Driver, ops: Operations, dtype: str, found: Differences) -> None:
    numbers = ops.put(scale_case(dtype)[0], dtype)
    _check(driver, ops, found, f"scale {dtype}", ops.scale(numbers))
    numbers = ops.put(total_case(dtype)[0], dtype)
    _check(driver, ops, found, f"total {dtype}", ops.total(numbers))
    left, right = (ops.put(side, dtype) for side in matmul_case(dtype)[:2])
    _check(driver, ops, found, f"matmul {dtype}", ops.matmul(left, right))


def _deep_cases(driver: Driver, ops: Operations, found: Differences) -> None:
    for dtype in ("fp32", "fp16"):
        image, filters = (ops.put(part, dtype) for part in conv_case()[:2])
        _check(driver, ops, found, f"conv {dtype}", ops.conv(image, filters))
    x, w, y = (ops.put(part, "fp32") for part in gradient_case()[:3])
    _check(driver, ops, found, "step fp32", ops.step(x, w, y))


def _check(driver: Driver, ops: Operations, found: Differences, name: str, result: Any) -> None:
    """Read a result out of the GPU's memory and compare it with plain Python's."""
    case, dtype = name.split()
    right, bound, relative = expected_numbers(case, dtype)
    data = driver.read(ops.address(result), len(right) * ITEM_BYTES[dtype])
    found[name] = compare(name, decoded(data, dtype), right, bound, relative=relative)


def expected_numbers(case: str, dtype: str) -> Tuple[Vector, float, bool]:
    """Return a case's right numbers, their bound, and whether that is relative."""
    if case == "scale":
        return scale_case(dtype)[1], 0.0, False
    if case == "total":
        return total_case(dtype)[1], 0.0, False
    if case == "matmul":
        return matmul_case(dtype)[2], 0.0, False
    if case == "exp":
        return exp_case()[1], EXP_BOUND, True
    if case == "conv":
        return conv_case()[2], CONV_BOUNDS[dtype], False
    return gradient_case()[3], 0.0, False


def bound_text(case: str, dtype: str) -> str:
    """Return how far a case's result may be off."""
    _, bound, relative = expected_numbers(case, dtype)
    return f"{bound:.3g}" + (" of the value" if relative else "")


def measure(driver: Driver, make: Callable[[], Operations]) -> Facts:
    """Return how fast a matrix product and a copy are: the best of several runs, warm.

    The product is of two random square matrices (8192**3 would be fairer to the largest GPUs and
    take seconds on the smallest); rates are in 10**9 operations and 10**6 bytes a second, a copy
    reads and writes each byte.
    """
    facts: Facts = {"side": SPEED_SIDE, "timer": "", **driver.facts()}
    ops = make()
    facts["timer"] = ops.timer
    for dtype in ops.dtypes:
        a, b = (ops.random((SPEED_SIDE, SPEED_SIDE), dtype) for _ in range(2))
        ms = _best(ops, lambda a=a, b=b: ops.matmul(a, b))  # type: ignore[misc]
        facts[f"matmul_{dtype}_gflops"] = int(2 * SPEED_SIDE**3 / ms / 1e6)
    block = ops.random((SPEED_BYTES // ITEM_BYTES["fp32"],), "fp32")
    facts["copy_mb_s"] = int(2 * SPEED_BYTES / _best(ops, lambda: ops.copy(block)) / 1e3)
    return facts


def _best(ops: Operations, work: Callable[[], Any]) -> float:
    """Return the fewest milliseconds of several runs, after one that warms up."""
    ops.timed(work)
    end = time.monotonic() + SPEED_SECONDS
    found = [ops.timed(work)]
    while len(found) < SPEED_RUNS and time.monotonic() < end:
        found.append(ops.timed(work))
    return min(found)


def host_timed(work: Callable[[], Any], wait: Callable[[Any], None]) -> float:
    """Return the milliseconds on the host's clock until work has ended.

    For frameworks whose streams cannot be timed by events.
    """
    start = time.perf_counter()
    wait(work())
    return (time.perf_counter() - start) * 1000


def use(operations: Callable[[], Operations]) -> None:
    """Make a probe's operations what the GPU checks compute with."""

    def check_cuda_tensor(expected: Facts) -> Facts:  # noqa: ARG001 - every check is called alike
        return compute(Driver(), operations)

    def check_speed(expected: Facts) -> Facts:  # noqa: ARG001 - every check is called alike
        return measure(Driver(), operations)

    CHECKS["cuda_tensor"] = check_cuda_tensor
    CHECKS["speed"] = check_speed


def dlpack_address(capsule: Any) -> int:
    """Return where the data of a DLPack capsule stand.

    Source: dlpack.h: a DLTensor begins with its data pointer and has its byte offset at 40.
    """
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = read(capsule, b"dltensor")
    data = ctypes.c_uint64.from_address(tensor).value
    return data + ctypes.c_uint64.from_address(tensor + 40).value
