"""The driver's own kernels, compiled by NVIDIA's assembler, which needs no GPU for it."""

from __future__ import annotations

import platform
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from curator.harness import _bare
from tests.contract.test_kernels import NVVM, TOOLS
from tests.unit.test_bare import KERNELS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="NVIDIA's programs are pinned for x86_64"
)

NEW, OLD = "13.0", "12.1"
TARGETS = [(NEW, sm) for sm in ("75", "80", "86", "89", "90", "100", "103", "120", "121")]
TARGETS += [(OLD, sm) for sm in ("50", "60", "70", "75", "90")]
FUNCTION = 2  # ELF's STT_FUNC


@pytest.fixture(scope="module")
def assemblers(cache: Path) -> dict[str, Path]:
    """Return `ptxas` of two releases of CUDA: the old one still knows GPUs that the new dropped."""
    return {
        NEW: TOOLS.fetched(cache) / "nvidia/cu13/bin/ptxas",
        OLD: NVVM.fetched(cache) / "nvidia/cuda_nvcc/bin/ptxas",
    }


def assembled(ptxas: Path, sm: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compile a text to `made.cubin`."""
    (folder / "text.ptx").write_text(text)
    given, made = str(folder / "text.ptx"), str(folder / "made.cubin")
    command = [str(ptxas), "-v", f"-arch=sm_{sm}", given, "-o", made]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def functions(data: bytes) -> set[str]:
    """Return the names of the functions in an ELF file of 64 bits.

    Source: System V ABI, chapter 4.
    """
    (start,) = struct.unpack_from("<Q", data, 40)
    size, number = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + size * n) for n in range(number)]
    found = set()
    for section in sections:
        if section[1] == 2:  # SHT_SYMTAB; its link is the section of its names
            names = sections[section[6]][4]
            for place in range(section[4], section[4] + section[5], 24):
                name, info = struct.unpack_from("<IB", data, place)
                if info & 15 == FUNCTION:
                    found.add(data[names + name :].split(b"\0", 1)[0].decode())
    return found


@pytest.mark.parametrize(("release", "sm"), TARGETS)
def test_kernels_compile_for_every_gpu(
    assemblers: dict[str, Path], tmp_path: Path, release: str, sm: str
) -> None:
    done = assembled(assemblers[release], sm, _bare.ptx(), tmp_path)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert "warning" not in told.lower()
    assert " spill stores" not in told.replace("0 bytes spill stores", "")
    assert functions((tmp_path / "made.cubin").read_bytes()) == KERNELS


@pytest.mark.parametrize(
    ("old", "new"),
    [("fma.rn.f32", "fma.f33"), ("%r11", "%r12"), (".param .u32 n", ".param .u32 m"), ("END:", "")],
)
def test_what_is_no_kernel_does_not_compile(
    assemblers: dict[str, Path], tmp_path: Path, old: str, new: str
) -> None:
    text = _bare.ptx()
    assert old in text
    assert assembled(assemblers[NEW], "90", text.replace(old, new), tmp_path).returncode
