"""A GPU made of software for tests of probes, and a runner that runs programs right here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curator.smoke import Gpu, HostFacts, ProbeRun

if TYPE_CHECKING:
    from collections.abc import Collection

    from curator.oci import Reference
    from curator.smoke import Probe

SOURCE = Path(__file__).with_name("data") / "gpu/cuda.c"
UUID = "GPU-00112233-4455-6677-8899-aabbccddeeff"
SOFTWARE = Gpu(name="Software", uuid=UUID, sm="9.0", memory_bytes=8 * 2**30)
HOST = HostFacts(gpus=(SOFTWARE,), driver="580.95.05", kernel="6.1", architecture="x86_64")
# As much as a CPU fills and multiplies in no time.
SMALL = "\nSPEED_SIDE, SPEED_BYTES, SPEED_SECONDS, BALLAST = 16, 4096, 0.1, 2**20\n"


def software_gpu(folder: Path) -> Path:
    """Return a directory of libraries with which this machine has a GPU made of software."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler makes the GPU of these tests: install gcc or clang")
    made = folder / "libcuda.so.1"
    command = [compiler, "-O2", "-fno-math-errno", "-shared", "-fPIC", "-o", str(made)]
    subprocess.run([*command, str(SOURCE), "-lm"], check=True)
    (folder / "libnvidia-ml.so.1").symlink_to(made)
    return folder


def without_a_driver(folder: Path) -> Path:
    """Return a directory of libraries with which this machine has no driver, if it had one."""
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        (folder / name).write_bytes(b"")
    return folder


def quick(probe: Probe) -> Probe:
    """Return a probe that takes little memory and time."""
    return replace(probe, text=probe.text + SMALL)


@dataclass(frozen=True, slots=True)
class Here:
    """A runner whose images are all this machine's Python.

    `libraries` is what it finds the driver in, and `fault` what is wrong with the GPU.
    """

    libraries: Path
    fault: str = ""
    gpus: tuple[str, ...] = (UUID,)
    python: str = sys.executable

    def on(self, gpus: Collection[str]) -> Here:
        return replace(self, gpus=tuple(gpu for gpu in self.gpus if gpu in gpus))

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        assert image.digest
        assert re.search(r"\nmain\('[0-9a-f]{32}'", program), "a nonce that nobody guesses"
        hidden = {} if gpus else {"CUDA_VISIBLE_DEVICES": "-1"}
        found = {"LD_LIBRARY_PATH": str(self.libraries), "FAULT": self.fault, **hidden}
        done = subprocess.run(
            [self.python, "-c", program],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **found},
        )
        return ProbeRun(
            exit_code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            started="2026-11-23T10:00:00Z",
            ended="2026-11-23T10:00:01Z",
            gpus=self.gpus[:gpus],
        )
