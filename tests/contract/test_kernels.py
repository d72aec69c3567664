"""What is read from fatbinaries, held against NVIDIA's own programs, which need no GPU for it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from curator.harness._kernels import in_order, read_code
from curator.smoke._program import harness
from tests.fatbinaries import LINKED, RELOCATABLE, library

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="NVIDIA's programs are pinned for x86_64"
)

NONCE = "0123456789abcdef"
# For the files alone, whatever Python runs the tests: 96 MB together.
FOR = ("--python-version=3.11", "--platform=manylinux_2_27_x86_64", "--platform=manylinux1_x86_64")
FOR_TOO = (
    "--platform=manylinux2014_x86_64",
    "--only-binary=:all:",
    "--no-deps",
    "--require-hashes",
)
TARGETS = ("75", "80", "90", "90a", "100", "100a", "100f", "103a", "120", "120f", "121a")
PTX = """.version 9.0
.target sm_{target}
.address_size 64
.visible .entry kernel(.param .u64 to) {{
  .reg .b64 %d<2>; .reg .b32 %r<2>;
  ld.param.u64 %d1, [to]; mov.u32 %r1, 7; st.global.u32 [%d1], %r1; ret;
}}
"""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index, and which of its files are wanted, by name or all `*.so`."""

    pin: str
    sha256: str
    files: tuple[str, ...]

    def fetched(self, cache: Path) -> Path:
        """Return a directory with the wheel's files, kept from one session to the next."""
        kept = cache / "tests/wheels" / f"{self.pin}-{self.sha256[:12]}"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as made:
                self._fetch(Path(made))
                (Path(made) / "files").rename(kept)
        return kept

    def _fetch(self, folder: Path) -> None:
        (folder / "pin.txt").write_text(f"{self.pin} --hash=sha256:{self.sha256}\n")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
        subprocess.run([*download, *FOR, *FOR_TOO, "-r", str(folder / "pin.txt")], check=True)
        (wheel,) = folder.glob("*.whl")
        (folder / "files").mkdir()
        shutil.unpack_archive(wheel, folder / "all", "zip")
        for path in (folder / "all").rglob("*"):
            if path.name in self.files or (".so" in path.name and "*.so" in self.files):
                target = folder / "files" / path.relative_to(folder / "all")
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
                target.chmod(0o755)


DUMP = Wheel(
    "nvidia-cuda-cuobjdump==13.5.37",
    "38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58",
    ("cuobjdump",),
)
TOOLS = Wheel(
    "nvidia-cuda-nvcc==13.0.88",
    "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
    ("ptxas", "fatbinary"),
)
JAX = Wheel(
    "jax-cuda13-plugin==0.10.2",
    "4dfbac70e6258c66e9f2c17df170e05cc86580d8fa25ed78d670491084581382",
    ("*.so",),
)
VISION = Wheel(
    "torchvision==0.20.1",
    "86f6523dee420000fe14c3527f6c8e0175139fda7d995b187f54a0b0ebec7eb6",
    ("*.so",),
)
NVRTC = Wheel(
    "nvidia-cuda-nvrtc-cu12==12.1.105",
    "339b385f50c309763ca65456ec75e17bbefcbbf2893f462cb8b90584cd27a1c2",
    ("*.so",),
)
NVVM = Wheel(
    "nvidia-cuda-nvcc-cu12==12.1.105",
    "a0712a05ffd57d9f017580ffcc808b207f7f4ef7a5ca8ac1312318b153739a18",
    ("ptxas", "libnvvm.so"),
)


def listed(dump: Path, file: Path, what: str) -> Counter[str]:
    """Return how many parts `cuobjdump` lists for each target."""
    done = subprocess.run([dump, what, file], capture_output=True, text=True, check=False)
    assert not done.returncode or "does not contain device code" in done.stdout + done.stderr
    return targets(re.findall(r"\.sm_(\d+[af]?)\.(?:cubin|ptx)$", done.stdout, re.MULTILINE))


def targets(names: list[str]) -> Counter[str]:
    return Counter(re.sub(r"(\d)([af]?)$", r".\1\2", name) for name in names)


@pytest.fixture(scope="session")
def dump(cache: Path) -> Path:
    """NVIDIA's `cuobjdump`."""
    return DUMP.fetched(cache) / "nvidia/cu13/bin/cuobjdump"


@pytest.mark.parametrize(
    ("wheel", "with_code"), [(JAX, 3), (VISION, 2)], ids=["clang", "nvcc-and-nvidia"]
)
def test_libraries_hold_what_nvidias_program_lists(
    cache: Path, dump: Path, wheel: Wheel, with_code: int
) -> None:
    files = [path for path in sorted(wheel.fetched(cache).rglob("*.so*")) if path.is_file()]
    read = {path: read_code(str(path)) for path in files}
    assert len([code for code in read.values() if code.cubin]) == with_code
    for path, code in read.items():
        assert code.cubin == listed(dump, path, "--list-elf"), path
        assert code.ptx == listed(dump, path, "--list-ptx"), path


@pytest.mark.parametrize("mode", ["none", "speed", "balance", "size"])
@pytest.mark.parametrize("section", [LINKED, RELOCATABLE])
def test_targets_and_compressions_are_those_that_nvidias_programs_write(
    cache: Path, dump: Path, tmp_path: Path, mode: str, section: str
) -> None:
    tools = TOOLS.fetched(cache) / "nvidia/cu13/bin"
    images = []
    for name in TARGETS:
        ptx, cubin = tmp_path / f"{name}.ptx", tmp_path / f"{name}.cubin"
        ptx.write_text(PTX.format(target=name))
        subprocess.run([tools / "ptxas", f"-arch=sm_{name}", ptx, "-o", cubin], check=True)
        images += [f"--image3=kind=elf,sm={name},file={cubin}"]
        images += [f"--image3=kind=ptx,sm={name},file={ptx}"]
    made = tmp_path / "made"
    how = ["-64", "--compress-all", f"--compress-mode={mode}"]
    subprocess.run([tools / "fatbinary", f"--create={made}", *how, *images], check=True)
    file = tmp_path / "libmade.so"
    file.write_bytes(library((section, made.read_bytes() * 3)))
    code = read_code(str(file))
    told = subprocess.run(
        [dump, "-elf", "-ptx", file], capture_output=True, text=True, check=True
    ).stdout
    for kind, found in (("elf", code.cubin), ("ptx", code.ptx)):
        told_of = re.findall(rf"^Fatbin {kind} code:\n=+\narch = sm_(\w+)$", told, re.MULTILINE)
        assert found == targets(told_of) == dict.fromkeys(targets(list(TARGETS)), 3)


def checked(tmp_path: Path, *places: Path) -> dict[str, Any]:
    """Run the check in an environment that has the files of these places."""
    venv.create(tmp_path / "env", symlinks=True)
    site = next(tmp_path.glob("env/lib/python3*/site-packages"))
    for place in places:
        shutil.copytree(place, site, dirs_exist_ok=True, copy_function=os.symlink)
    text = harness("_run", "_contents", "_kernels")
    text += f"TOOLKIT = '/nowhere'\nmain({NONCE!r}, ('kernels',), '')"
    command = [str(tmp_path / "env/bin/python3"), "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(NONCE))
    (found,) = json.loads(line.removeprefix(NONCE))["checks"]
    assert found["outcome"] == "pass", found["detail"]
    got = found["got"]
    assert isinstance(got, dict)
    return got


def test_compilers_are_asked_for_their_targets(cache: Path, tmp_path: Path) -> None:
    nvvm, nvrtc = NVVM.fetched(cache), NVRTC.fetched(cache)
    asked = [str(nvvm / "nvidia/cuda_nvcc/bin/ptxas"), "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    plain = in_order(targets(re.findall(r"'sm_(\d+)'", told)))
    assert plain[0] == "5.0"
    both = checked(tmp_path / "both", nvvm, nvrtc)
    assert (both["jit"], both["compiles"]) == ("nvvm", plain)
    alone = checked(tmp_path / "alone", nvrtc)
    assert (alone["jit"], alone["compiles"]) == ("nvrtc", plain)
    assert (alone["cubin"], alone["ptx"], alone["own"]) == ([], [], {})
