"""The targets in a library's fatbinaries, read from files that are right, cut off, or hostile."""

from __future__ import annotations

import json
import struct
import subprocess
import time
import tracemalloc
import venv
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.harness._kernels import Code, UnreadableError, architectures, in_order, read_code
from curator.smoke._program import harness
from tests.fatbinaries import (
    CUBIN,
    LINKED,
    NO_BITS,
    NVVM,
    PTX,
    RELOCATABLE,
    container,
    entry,
    kernel,
    library,
)

if TYPE_CHECKING:
    from pathlib import Path

HARNESS = harness("_run", "_contents", "_kernels")
NONCE = "0123456789abcdef"


def code(path: Path, *sections: tuple[str, bytes]) -> Code:
    path.write_bytes(library(*sections))
    return read_code(str(path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "libkernels.so"


def test_each_container_counts_a_target_once(file: Path) -> None:
    twice = container(entry(CUBIN, "80"), entry(CUBIN, "80"), entry(PTX, "90"))
    found = code(file, (".text", b"\x90" * 100), (LINKED, kernel("80", "90a") + twice))
    assert found.containers == 2
    assert found.cubin == {"8.0": 2, "9.0a": 1}
    assert found.ptx == {"9.0": 1}


def test_targets_of_every_kind(file: Path) -> None:
    found = code(file, (LINKED, kernel("52", "75", "90a", "100", "100f", "121a", "p120", "p103f")))
    assert in_order(found.cubin) == ["5.2", "7.5", "9.0a", "10.0", "10.0f", "12.1a"]
    assert in_order(found.ptx) == ["10.3f", "12.0"]


def test_headers_of_every_length(file: Path) -> None:
    parts = [entry(CUBIN, f"{80 + n}", header=length) for n, length in enumerate((48, 64, 80, 112))]
    assert in_order(code(file, (LINKED, container(*parts))).cubin) == ["8.0", "8.1", "8.2", "8.3"]


def test_padding_between_containers_and_after_them(file: Path) -> None:
    odd = container(entry(CUBIN, "80", payload=b"odd"))
    section = bytes(24) + odd.ljust(128, b"\0") + bytes(9000) + kernel("90") + bytes(5)
    assert code(file, (LINKED, section)).cubin == {"8.0": 1, "9.0": 1}


def test_what_a_linker_would_have_to_link_counts_only_alone(file: Path) -> None:
    relocatable = (RELOCATABLE, kernel("80", "p80"))
    assert code(file, relocatable).ptx == {"8.0": 1}
    both = code(file, relocatable, (LINKED, kernel("90")))
    assert (both.cubin, both.ptx) == ({"9.0": 1}, {})
    assert code(file, relocatable, (LINKED, b"")).cubin == {"8.0": 1}


def test_sections_without_bytes_in_the_file_hold_nothing(file: Path) -> None:
    file.write_bytes(library((LINKED, kernel("80")), kind=NO_BITS))
    assert read_code(str(file)).cubin == {}


def test_containers_of_other_kinds_are_none(file: Path) -> None:
    found = code(file, (LINKED, container(entry(NVVM, "90")) + container() + kernel("90")))
    assert (found.containers, found.cubin, found.ptx) == (1, {"9.0": 1}, {})


def test_more_sections_than_the_header_can_count(file: Path) -> None:
    data = bytearray(library((LINKED, kernel("80"))))
    (table,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    struct.pack_into("<HH", data, 60, 0, 0xFFFF)
    struct.pack_into("<QI", data, table + 32, count, names)
    file.write_bytes(data)
    assert read_code(str(file)).cubin == {"8.0": 1}


@pytest.mark.parametrize(
    "content", [b"", b"\x7fEL", b"INPUT(libc.so.6)", b"\x7fELF\x01\x01", b"\x7fELF\x02\x02"]
)
def test_what_is_no_such_file_holds_nothing(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read_code(str(file)) == Code(0, 0, {}, {})


def test_a_file_that_ends_too_early_is_never_half_read(file: Path) -> None:
    whole = library((LINKED, kernel("80", "90") + kernel("p90")))
    for length in range(6, len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(UnreadableError):
            read_code(str(file))


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (b"\1" + kernel("80")[1:], "no container at 64"),
        (kernel("80") + b"garbage!" * 2, "no container at 152"),
        (kernel("80")[:-8], "the container at 64 goes beyond its section"),
        (struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 2**64 - 1), "goes beyond its section"),
        (struct.pack("<IHHQ", 0xBA55ED50, 1, 0, 0), "no container at 64"),
        (container(entry(CUBIN, "80")[:-8]), "the entry at 80 goes beyond its container"),
        (container(entry(CUBIN, "80"), b"rest"), "go beyond byte 156"),
        (container(entry(CUBIN, "80", header=48, payload=b"")[:4] + bytes(44)), "no entry at 80"),
        (container(entry(CUBIN, "1")), "no entry at 80"),
        (container(entry(CUBIN, "4000000000")), "no entry at 80"),
    ],
)
def test_what_is_laid_out_otherwise_is_named(file: Path, section: bytes, told: str) -> None:
    with pytest.raises(UnreadableError, match=told):
        code(file, (LINKED, section))


WHOLE = library((LINKED, kernel("75", "90a", "p90") + kernel("120f")), (RELOCATABLE, kernel("80")))
Edits = list[tuple[int, bytes]]


@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(WHOLE) - 1),
            st.binary(min_size=1, max_size=2)
            | st.integers(0, 2**64 - 1).map(lambda number: struct.pack("<Q", number)),
        ),
        min_size=1,
        max_size=4,
    ),
    keep=st.integers(0, len(WHOLE)) | st.just(len(WHOLE)),
)
def test_changed_bytes_end_in_targets_or_a_finding(
    tmp_path_factory: pytest.TempPathFactory, edits: Edits, keep: int
) -> None:
    data = bytearray(WHOLE)
    for at, new in edits:
        data[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "changed.so"
    path.write_bytes(data[:keep])
    try:
        found = read_code(str(path))
    except UnreadableError:
        return
    assert found.containers <= len(WHOLE) // 16
    assert all(
        0 < count <= found.containers for count in (*found.cubin.values(), *found.ptx.values())
    )


def test_a_section_without_end_is_given_up(file: Path) -> None:
    data = bytearray(library((LINKED, kernel("80"))))
    (table,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<QQ", data, table + 64 + 24, 2**20, 2**40)
    file.write_bytes(data)
    with file.open("r+b") as sparse:
        sparse.truncate(2**41)
    start = time.monotonic()
    with pytest.raises(UnreadableError, match="more than 100000 headers"):
        read_code(str(file))
    assert time.monotonic() - start < 30


def test_headers_are_all_that_is_read(file: Path) -> None:
    """A gigabyte of code, as a hole in the file, takes no time and no memory."""
    header = entry(CUBIN, "90", payload=b"")
    size = 2**30
    first = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 64 + size)
    code_header = header[:8] + struct.pack("<Q", size) + header[16:]
    data = bytearray(library((LINKED, first + code_header)))
    (table,) = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, table + 64 + 32, 80 + size)
    file.write_bytes(data)
    with file.open("r+b") as sparse:
        sparse.truncate(2**31)
    tracemalloc.start()
    start = time.monotonic()
    assert read_code(str(file)).cubin == {"9.0": 1}
    assert time.monotonic() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 2**16
    tracemalloc.stop()


def test_targets_in_the_order_of_their_numbers() -> None:
    assert in_order({"12.0", "9.0a", "10.0", "9.0", "7.5", "10.0f"}) == [
        "7.5",
        "9.0",
        "9.0a",
        "10.0",
        "10.0f",
        "12.0",
    ]


def test_a_compilers_list_as_targets() -> None:
    text = "sm_75 sm_80 sm_90 sm_90a sm_100 compute_120 compute_100f xsm_50 sm_7"
    assert architectures(text) == ["7.5", "8.0", "9.0", "9.0a", "10.0", "10.0f", "12.0"]
    assert architectures(text, "compute") == ["10.0f", "12.0"]
    assert architectures(text, "sm") == ["7.5", "8.0", "9.0", "9.0a", "10.0"]
    assert architectures("") == []


@pytest.fixture
def image(tmp_path: Path) -> Path:
    venv.create(tmp_path / "env", symlinks=True)
    return tmp_path / "env"


def put(image: Path, name: str, *containers: bytes) -> None:
    path = next(image.glob("lib/python3*/site-packages")) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(library((LINKED, b"".join(containers))))


def checked(image: Path, **expected: str) -> dict[str, Any]:
    toolkit = str(image / "usr/local/cuda")
    text = f"{HARNESS}\nTOOLKIT = {toolkit!r}\nEXPECT.update(kernels={expected!r})\n"
    text += f"main({NONCE!r}, ('kernels',), '')"
    command = [str(image / "bin/python3"), "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(NONCE))
    (found,) = json.loads(line.removeprefix(NONCE))["checks"]
    assert isinstance(found, dict)
    return found


def test_what_most_of_the_frameworks_containers_hold_is_its_label(image: Path) -> None:
    put(image, "torch/lib/libtorch_cuda.so", *[kernel("75", "80", "90")] * 7, kernel("90a", "90"))
    put(image, "torch/lib/libtorch_linalg.so", *[kernel("50", "80", "90", "p90")] * 2)
    put(image, "torch/lib/libcudnn.so.9", *[kernel("60", "p120")] * 99)
    put(image, "nvidia/cublas/lib/libcublas.so.12", *[kernel("80", "89", "p120")] * 99)
    put(image, "nvidia/other/lib/libother.so.1", *[kernel("70")] * 99)
    found = checked(image, sm_min="7.5")
    assert found["outcome"] == "pass"
    got = found["got"]
    assert (got["cubin"], got["ptx"], got["containers"]) == (["7.5", "8.0", "9.0"], [], 10)
    assert got["partly"] == {"cubin": {"5.0": 2, "9.0a": 1}, "ptx": {"9.0": 2}}
    assert got["own"] == {
        "torch/lib/libtorch_cuda.so": {"cubin": ["7.5", "8.0", "9.0", "9.0a"], "ptx": []},
        "torch/lib/libtorch_linalg.so": {"cubin": ["5.0", "8.0", "9.0"], "ptx": ["9.0"]},
    }
    assert sorted(got["libraries"]) == [
        "nvidia/cublas/lib/libcublas.so.12",
        "nvidia/other/lib/libother.so.1",
        "torch/lib/libcudnn.so.9",
    ]
    assert got["libraries"]["torch/lib/libcudnn.so.9"] == {"cubin": ["6.0"], "ptx": ["12.0"]}
    assert (got["jit"], got["compiles"], got["unread"]) == ("", [], {})


def test_a_gap_is_a_capability_that_a_library_has_nothing_for(image: Path) -> None:
    put(image, "torch/lib/libtorch_cuda.so", *[kernel("75", "86", "90", "100f", "120")] * 60)
    put(image, "torch/lib/libtorch_linalg.so", *[kernel("80", "90", "100", "120")] * 50)
    put(image, "nvidia/blas/lib/libblas.so.1", *[kernel("75", "80", "p90")] * 50)
    put(image, "nvidia/dnn/lib/libdnn.so.1", *[kernel("75", "80", "90a", "100a", "120f")] * 50)
    put(image, "nvidia/lt/lib/liblt.so.1", *[kernel("75", "80", "90", "103a", "p100a")] * 50)
    put(image, "nvidia/jit/lib/libjit.so.1", *[kernel("52")] * 50)
    put(image, "nvidia/stub/lib/libstub.so.1", kernel("75"))
    found = checked(image)["got"]["gaps"]
    assert found == {
        "7.5": ["torch/lib/libtorch_linalg.so"],
        "12.0": ["nvidia/lt/lib/liblt.so.1"],
    }


def test_one_file_with_two_names_is_read_once(image: Path) -> None:
    put(image, "framework/libone.so.1", kernel("80"))
    site = next(image.glob("lib/python3*/site-packages"))
    (site / "framework/libone.so").symlink_to("libone.so.1")
    (site / "framework/libgone.so").symlink_to("nowhere")
    assert checked(image)["got"]["containers"] == 1


@pytest.mark.parametrize(
    ("held", "floor", "outcome"),
    [
        (("75", "90"), "7.5", "pass"),
        (("70",), "7.5", "pass"),
        (("p70",), "7.5", "pass"),
        (("80", "90"), "7.5", "fail"),
        (("90a",), "9.0", "pass"),
        (("p90a", "80"), "10.0", "fail"),
        (("60",), "7.5", "fail"),
        (("100",), "10.3", "pass"),
        (("100f",), "10.3", "pass"),
        (("100a",), "10.3", "fail"),
    ],
)
def test_the_lowest_capability_of_the_label_has_to_load_something(
    image: Path, held: tuple[str, ...], floor: str, outcome: str
) -> None:
    put(image, "framework/libown.so", kernel(*held))
    found = checked(image, sm_min=floor)
    assert found["outcome"] == outcome
    assert (f"the label promises {floor} on" in found["detail"]) == (outcome == "fail")


def test_libraries_of_a_toolkit_stand_beside(image: Path) -> None:
    put(image, "framework/libown.so", kernel("80"))
    blas = image / "usr/local/cuda-12.9/lib64/libblas.so.12"
    blas.parent.mkdir(parents=True)
    blas.write_bytes(library((LINKED, kernel("90"))))
    got = checked(image)["got"]
    assert (got["cubin"], got["containers"]) == (["8.0"], 1)
    assert got["libraries"] == {"lib64/libblas.so.12": {"cubin": ["9.0"], "ptx": []}}


def test_a_framework_for_the_cpu_is_found(image: Path) -> None:
    put(image, "nvidia/cublas/lib/libcublas.so.12", kernel("80"))
    put(image, "torch/lib/libtorch_cpu.so")
    found = checked(image)
    assert found["outcome"] == "fail"
    assert "no shared library holds GPU code, and no compiler" in found["detail"]


def test_what_cannot_be_read_fails_if_it_is_the_frameworks_own(image: Path) -> None:
    put(image, "torch/lib/libtorch_cuda.so", kernel("80"))
    put(image, "nvidia/cublas/lib/libcublas.so.12", b"garbage!" * 9)
    found = checked(image)
    assert found["outcome"] == "pass"
    assert found["got"]["unread"] == {"nvidia/cublas/lib/libcublas.so.12": "no container at 64"}
    put(image, "torch/lib/libtorch_more.so", b"garbage!" * 9)
    found = checked(image)
    assert found["detail"] == "UnreadableError: torch/lib/libtorch_more.so: no container at 64"
