"""The program that runs inside an image, as the text that `curator.smoke` assembles.

It travels as text (`python3 -c TEXT`), so it is in no image and changes no digest: this module,
then a framework's probe, then what is expected, then a call of `main`. Standard library only, and
syntax of Python 3.8, since it runs on whatever Python an image has.

- Each check runs in a forked child with a deadline: a crash, a hang or an exit is a failure of that
  check, and what a check prints goes to stderr and cannot become part of the report.
- The parent alone writes the report, one line that begins with the run's nonce.
- Facts are strings and whole numbers.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import platform
import re
import select
import signal
import sys
import sysconfig
import time
from importlib import metadata
from typing import Any, Callable, Dict, List, Tuple

CHECK_SECONDS = 180
FACTS_LIMIT = 65536

Facts = Dict[str, Any]
Check = Callable[[Facts], Facts]

# Transports of multi-node libraries and profiler parts, which want hardware or its drivers.
OPTIONAL = (
    "libmlx5", "libibverbs", "librdmacm", "libucp", "libucs", "libfabric", "libpmix", "libmpi",
    "libefa", "liboshmem", "libgdrapi", "nvshmem_transport", "nvshmem_bootstrap", "libcufile_rdma",
    "libpcsamplingutil", "libnvperf", "libcheckpoint", "libcupti",
)  # fmt: skip
DRIVER = ("libcuda.so", "libnvidia-ml.so")


def run_check(function: Check, expected: Facts) -> Tuple[str, Any, str]:
    """Return (outcome, got, detail) of one check, run in a child of its own."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(function, expected, writer)
    os.close(writer)
    data, in_time = _listen(reader)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not in_time:
        return "fail", None, f"no answer within {CHECK_SECONDS} s"
    return _outcome(data, status, expected)


def _answer(function: Check, expected: Facts, writer: int) -> None:
    """Run a check and write its answer; never returns."""
    os.dup2(2, 1)
    try:
        text = json.dumps({"got": function(expected)})
    except BaseException as error:  # whatever a framework raises is the finding
        text = json.dumps({"error": f"{type(error).__name__}: {error}"})
    try:
        data = text.encode()[:FACTS_LIMIT]
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _listen(reader: int) -> Tuple[bytes, bool]:
    """Return what a child wrote, and whether it ended before its deadline."""
    deadline = time.monotonic() + CHECK_SECONDS
    chunks: List[bytes] = []
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([reader], [], [], left)[0]:
                return b"", False
            chunk = os.read(reader, FACTS_LIMIT)
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
    finally:
        os.close(reader)


def _outcome(data: bytes, status: int, expected: Facts) -> Tuple[str, Any, str]:
    if os.WIFSIGNALED(status):
        return "fail", None, f"killed by signal {os.WTERMSIG(status)}"
    try:
        result = json.loads(data.decode())
    except ValueError:
        return "fail", None, f"ended without an answer, status {os.WEXITSTATUS(status)}"
    if "error" in result:
        return "fail", None, str(result["error"])[:2000]
    got = result["got"]
    wrong = [k for k, v in expected.items() if not isinstance(got, dict) or got.get(k) != v]
    if wrong:
        return "fail", got, "differs in " + ", ".join(sorted(wrong))
    return "pass", got, ""


def main(nonce: str, checks: Dict[str, Tuple[Check, bool]], expect: Facts, gpus: int) -> None:
    """Run every check and write the report as the last line of stdout."""
    report = []
    for name, (function, needs_gpu) in checks.items():
        expected = expect.get(name, {})
        start = time.monotonic()
        if needs_gpu and not gpus:
            outcome, got, detail = "not-run", None, "no GPU on this host"
        else:
            outcome, got, detail = run_check(function, expected)
        report.append(
            {
                "name": name,
                "outcome": outcome,
                "expected": expected,
                "got": got,
                "detail": detail,
                "ms": int((time.monotonic() - start) * 1000),
            }
        )
    text = json.dumps({"checks": report}, sort_keys=True)
    sys.stdout.write(f"\n{nonce} {text}\n")
    sys.stdout.flush()


def check_python(expected: Facts) -> Facts:
    """Read the interpreter, and each distribution that the lock names."""
    found: Facts = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "glibc": platform.libc_ver()[1],
    }
    for name in expected:
        if name not in found:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "absent"
    return found


def check_libraries(expected: Facts) -> Facts:  # noqa: ARG001 - every check is called alike
    """Load every CUDA library of the image; only the driver's own may be missing."""
    root = sysconfig.get_paths()["purelib"]
    found = glob.glob(root + "/nvidia/**/*.so*", recursive=True)
    paths = sorted(path for path in found if re.search(r"\.so(\.\d+)*$", path))
    waiting, failed = list(paths), {"": ""}
    # A library may need another one that stands later in the list: go on while that helps.
    while failed:
        failed = {path: error for path in waiting if (error := _load(path))}
        if len(failed) == len(waiting):
            break
        waiting = list(failed)
    broken = [error for path, error in failed.items() if not _may_fail(path, error)]
    if broken:
        raise OSError("; ".join(broken)[:1500])
    return {"count": len(paths), "skipped": len(failed)}


def _load(path: str) -> str:
    try:
        ctypes.CDLL(path)
    except OSError as error:
        return str(error)
    return ""


def _may_fail(path: str, error: str) -> bool:
    missing = error.partition(":")[0]
    return missing.startswith(DRIVER + OPTIONAL) or os.path.basename(path).startswith(OPTIONAL)


def cuda_runtime() -> str:
    """Return the version of the CUDA runtime that the image's wheels hold, such as 12.9."""
    pattern = sysconfig.get_paths()["purelib"] + "/nvidia/**/libcudart.so.*"
    (path,) = sorted(glob.glob(pattern, recursive=True))
    number = ctypes.c_int()
    status = ctypes.CDLL(path).cudaRuntimeGetVersion(ctypes.byref(number))
    if status:
        raise OSError(f"{path}: cudaRuntimeGetVersion returns {status}")
    return dotted(number.value)


def dotted(number: int) -> str:
    """Return CUDA's number for a version as text: 12090 is 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def dotted_cudnn(number: int) -> str:
    """Return cuDNN's number for a version as text: 91002 is 9.10.2, 8902 is 8.9.2."""
    step = 10000 if number >= 90000 else 1000
    return f"{number // step}.{number % step // 100}.{number % 100}"


# What every GPU check computes: y = 2x + 1 over 0..N-1, its sum, and a product of two small integer
# matrices. Whole numbers below 2**24 are exact in fp32 (those of the matrices in TF32 as well), so
# the comparison is for equality.
N = 4096
SIDE = 64

Matrix = List[List[int]]


def tensor_reference() -> Tuple[List[int], Matrix, Matrix, Matrix]:
    """Return (elements, left, right, product), computed in plain Python."""
    values = [2 * i + 1 for i in range(N)]
    left = [[(i * 7 + k * 3) % 11 for k in range(SIDE)] for i in range(SIDE)]
    right = [[(k * 5 + j * 2) % 13 for j in range(SIDE)] for k in range(SIDE)]
    columns = list(zip(*right))
    product = [[sum(a * b for a, b in zip(row, column)) for column in columns] for row in left]
    return values, left, right, product


def require_equal(name: str, got: object, expected: object) -> None:
    """Compare numbers exactly."""
    if got != expected:
        raise AssertionError(f"{name}: the GPU computed other numbers than plain Python")


CHECKS: Dict[str, Tuple[Check, bool]] = {
    "python": (check_python, False),
    "libraries": (check_libraries, False),
}
EXPECT: Facts = {}
