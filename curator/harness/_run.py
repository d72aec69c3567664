"""Runs checks, each in a child of its own, and writes the report."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

CHECK_SECONDS = 180
FACTS_LIMIT = 65536
GPU_CHECKS = ("cuda_tensor", "speed")
CONTROL = "control"
# Honoured by the driver itself, so by every framework; -1 is no device's number.
# Source: CUDA C++ programming guide, "CUDA environment variables".
HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1"}
# Errors of a program that is wrong or lacks a part, which are no word about a GPU.
BROKEN = (
    "AttributeError",
    "ImportError",
    "ModuleNotFoundError",
    "NameError",
    "SyntaxError",
    "TypeError",
    "UnboundLocalError",
)

Facts = Dict[str, Any]
Check = Callable[[Facts], Facts]
Answer = Tuple[str, Any, str]

CHECKS: Dict[str, Check] = {}
EXPECT: Facts = {}


def main(nonce: str, names: Tuple[str, ...], no_gpu: str) -> None:
    """Run the checks of these names and write the report as the last line of stdout.

    `no_gpu` says why GPU checks are not run; where a GPU was given, it is empty.
    """
    report = []
    for name in names:
        expected = EXPECT.get("cuda_tensor" if name == CONTROL else name, {})
        start = time.monotonic()
        outcome, got, detail = _run_one(name, expected, no_gpu)
        report.append(
            {
                "name": name,
                "outcome": outcome,
                "expected": {} if name == CONTROL else expected,
                "got": got,
                "detail": detail,
                "ms": int((time.monotonic() - start) * 1000),
            }
        )
    text = json.dumps({"checks": report}, sort_keys=True)
    sys.stdout.write(f"\n{nonce} {text}\n")
    sys.stdout.flush()


def _run_one(name: str, expected: Facts, no_gpu: str) -> Answer:
    if name in GPU_CHECKS and no_gpu:
        return "not-run", None, no_gpu
    function = CHECKS.get("cuda_tensor" if name == CONTROL else name)
    if function is None:
        return "fail", None, "this probe defines no such check"
    if name == CONTROL:
        return run_control(function, expected)
    return run_check(function, expected)


def run_control(function: Check, expected: Facts) -> Answer:
    """Run a GPU check with every GPU hidden: it has to miss the GPU, and to miss nothing else."""
    outcome, got, detail = run_check(function, expected, HIDDEN)
    if outcome == "pass":
        told = "passed with every GPU hidden: such a probe proves nothing"
        return "fail", {"passed": got}, told
    if detail.startswith(BROKEN):
        return "fail", None, f"broke before it missed the GPU: {detail}"[:2000]
    return "pass", {"refused": detail[:500]}, ""


def run_check(
    function: Check, expected: Facts, environment: Optional[Dict[str, str]] = None
) -> Answer:
    """Return (outcome, got, detail) of one check, run in a child of its own."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.environ.update(environment or {})
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
        json.loads(text, parse_float=_refuse_float, parse_constant=_refuse_float)
    except BaseException as error:  # whatever a framework raises is the finding
        text = json.dumps({"error": f"{type(error).__name__}: {error}"})
    try:
        data = text.encode()[:FACTS_LIMIT]
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _refuse_float(text: str) -> None:
    raise TypeError(f"{text} is a float, which no fact may be")


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


def _outcome(data: bytes, status: int, expected: Facts) -> Answer:
    if os.WIFSIGNALED(status):
        return "fail", None, f"killed by signal {os.WTERMSIG(status)}"
    try:
        result = json.loads(data.decode())
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or not {"error", "got"} & set(result):
        return "fail", None, f"ended without an answer, status {os.WEXITSTATUS(status)}"
    if "error" in result:
        return "fail", None, str(result["error"])[:2000]
    got = result["got"]
    wrong = [k for k, v in expected.items() if not isinstance(got, dict) or got.get(k) != v]
    if wrong:
        return "fail", got, "differs in " + ", ".join(sorted(wrong))
    return "pass", got, ""
