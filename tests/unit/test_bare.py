"""The driver's own probe, on a GPU made of software: it passes there, and each fault is found."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from curator.errors import TemporaryError
from curator.farm import remote_host
from curator.harness import _bare, _numbers
from curator.oci import Reference, sha256
from curator.smoke import Probes, SmokeReport, Subject, judge, run_program
from tests.gpus import HOST, SOFTWARE, Here, quick, software_gpu, without_a_driver

if TYPE_CHECKING:
    from pathlib import Path

NONCE = "0123456789abcdef0123456789abcdef"
IMAGE = Reference.parse("localhost/image").with_digest(sha256(b"image"))
SUBJECT = Subject(image=sha256(b"image"))
KERNELS = {
    f"{case}_{dtype}"
    for case in ("scale", "exp", "random", "total", "matmul")
    for dtype in _numbers.ITEM_BYTES
}
FAULTS = {
    **{
        f"{case}_{dtype}": f"AssertionError: {case} {dtype}: number "
        for case in ("scale", "total", "matmul")
        for dtype in _numbers.ITEM_BYTES
    },
    "exp_fp32": "AssertionError: exp fp32: number 0 is ",
    "idle": "AssertionError: scale fp32: number 0 is 0.0, right is ",
    "unused": "AssertionError: the GPU's memory grew by 0 bytes",
    "clock": "AssertionError: the GPU took 0.0 ms for a matrix product",
    "host": "DriverError: the result is not in a GPU's memory (memory type 1)",
    "crash": "DriverError: cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED (719)",
    "compiler": "DriverError: cuModuleLoadData: CUDA_ERROR_INVALID_PTX (218)",
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return software_gpu(tmp_path_factory.mktemp("gpu"))


def report(runner: Here, *checks: str) -> SmokeReport:
    made = quick(Probes({}).bare())
    made = replace(made, checks=checks or made.checks)
    run = runner.run(IMAGE, run_program(made, NONCE), gpus=1, timeout_s=60)
    return judge(made, run, nonce=NONCE, subject=SUBJECT, host=HOST)


def details(found: SmokeReport) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks}


def test_a_gpu_that_computes_right_passes(libraries: Path) -> None:
    found = report(Here(libraries))
    assert (found.verdict, found.fault) == ("pass", ""), details(found)
    assert found.tested_gpu == SOFTWARE
    told = found.got("cuda_tensor")
    assert (told["cuda"], told["driver"], told["timer"]) == ("13.0", "580.95.05", "events")
    exact = {name for name, difference in told["differences"].items() if difference == "0"}
    assert set(told["differences"]) - exact == {"exp fp32"}
    assert len(exact) == 9
    assert told["memory_grew"] >= 4 * 2**20
    assert told["matmul_ns"] == 500_000
    rates = found.got("speed")
    assert rates["copy_mb_s"] == int(2 * 4096 / 0.5e-3 / 1e6)
    assert {f"matmul_{dtype}_gflops" for dtype in _numbers.ITEM_BYTES} <= set(rates)
    assert SmokeReport.parse(found.data, "r") == found


def test_its_control_misses_the_gpu(libraries: Path) -> None:
    (control,) = report(Here(libraries), "control").checks
    assert (control.outcome, control.got) == (
        "pass",
        {"refused": "DriverError: cuInit: CUDA_ERROR_NO_DEVICE (100)"},
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_gpu_is_found(libraries: Path, fault: str) -> None:
    found = report(Here(libraries, fault), "cuda_tensor")
    assert found.gpu == "fail"
    assert FAULTS[fault] in details(found)["cuda_tensor"]


def test_an_address_of_the_host_is_no_result(libraries: Path) -> None:
    made = replace(Probes({}).bare(), checks=("cuda_tensor",))
    elsewhere = "\nkept = ctypes.create_string_buffer(4096 * 4)\n"
    elsewhere += "Bare.address = lambda self, array: ctypes.addressof(kept)\n"
    made = replace(made, text=made.text + elsewhere)
    run = Here(libraries).run(IMAGE, run_program(made, NONCE), gpus=1, timeout_s=60)
    found = judge(made, run, nonce=NONCE, subject=SUBJECT, host=HOST)
    assert details(found)["cuda_tensor"].startswith(
        "DriverError: cuPointerGetAttribute: CUDA_ERROR_INVALID_VALUE (1)"
    )


def test_a_machine_without_a_driver_fails_by_that(tmp_path: Path) -> None:
    found = report(Here(without_a_driver(tmp_path)))
    told = details(found)
    assert (found.contents, found.gpu, found.fault) == ("pass", "fail", "")
    assert told["cuda_tensor"].startswith("DriverError: ")
    assert "libcuda.so.1" in told["cuda_tensor"]
    assert "libcuda.so.1" in told["speed"]


def test_a_host_tells_its_gpus(libraries: Path, tmp_path: Path) -> None:
    facts = remote_host(Here(libraries), IMAGE)
    assert (facts.gpus, facts.driver) == ((SOFTWARE,), "580.95.05")
    nothing = remote_host(Here(without_a_driver(tmp_path)), IMAGE)
    assert (nothing.gpus, nothing.driver) == ((), None)
    assert (facts.kernel, facts.architecture) == (nothing.kernel, nothing.architecture)


def test_a_host_that_cannot_run_python_tells_nothing(libraries: Path) -> None:
    with pytest.raises(TemporaryError, match="does not tell what it is"):
        remote_host(Here(libraries, python="/bin/false"), IMAGE)


def test_there_is_a_kernel_for_each_case_and_type() -> None:
    text = _bare.ptx()
    assert text.startswith(".version 6.0\n.target sm_50\n.address_size 64\n")
    assert set(re.findall(r"\.visible \.entry (\w+)\(", text)) == KERNELS
    assert text.count(".entry") == len(KERNELS)
    assert text.count("{") == text.count("}")
    assert not re.search(r"\{\w+\}", text), "every place was filled in"


def test_constants_of_the_kernels_are_those_that_are_meant() -> None:
    for value, text in ((2.0, _bare.SCALE), (1.0, _bare.SCALE), (2.0**-24, _bare.RANDOM)):
        assert f"0f{struct.pack('>f', value).hex().upper()}" in text
    log2_e = struct.pack(">f", 1 / math.log(2)).hex().upper()
    assert f"0f{log2_e}" in _bare.EXP
