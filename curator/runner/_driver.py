"""What a container needs of this machine to compute on some of its GPUs.

A CDI specification is used where there is one. Else the same is found here: the device files of
exactly these GPUs, those that all GPUs share, and the driver's libraries for computing, which go
into a directory of their own in the container and are of the version that the kernel runs.

Source: NVIDIA driver README, "The /proc/driver/nvidia interface" and "Installed components";
NVIDIA Container Toolkit, driver capabilities `compute` and `utility`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.errors import HostError
from curator.runner import _cdi

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from curator.runner._cdi import Edits

# Where the libraries are in a container: no image has anything there.
LIBRARIES = "/usr/local/lib/curator-driver"
FIRST = "libcuda.so.1"
REQUIRED = (FIRST, "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
OPTIONAL = ("libnvidia-nvvm.so.4", "libnvidia-gpucomp.so.*", "libcudadebugger.so.1")
SHARED_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
OPTIONAL_NODES = {"nvidia-uvm-tools"}
FOLDERS = (
    Path("/usr/local/nvidia/lib64"),
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib/wsl/lib"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Edits of a container's configuration, and a directory for its library path, if any."""

    edits: tuple[Edits, ...] = ()
    library_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where to look on this machine; `libraries` instead of where the loader looks."""

    proc: Path = Path("/proc/driver/nvidia")
    devices: Path = Path("/dev")
    specifications: Sequence[Path] = _cdi.FOLDERS
    libraries: Sequence[Path] = ()

    def access(self, gpus: Sequence[str]) -> Access:
        """Return what gives a container exactly these GPUs, by UUID.

        Raises:
            HostError: a GPU or a part of the driver is not there; the message says which.
        """
        if not gpus:
            return Access()
        nodes = {gpu: self._node(gpu) for gpu in gpus}
        found = [
            _cdi.edits_for(gpu, f"/dev/{node.name}" if node else "", self.specifications)
            for gpu, node in nodes.items()
        ]
        if all(found):
            edits: list[Edits] = []
            for edit in (edit for pair in found for edit in pair):
                edits += [] if edit in edits else [edit]
            return Access(edits=tuple(edits))
        unknown = [gpu for gpu, node in nodes.items() if node is None]
        if unknown:
            raise HostError(f"{self.proc} knows no GPU {unknown[0]}: is NVIDIA's driver loaded?")
        shared = self._shared([node for node in nodes.values() if node is not None])
        return Access(
            edits=({"deviceNodes": shared, "mounts": list(self._mounts())},),
            library_path=LIBRARIES,
        )

    def _node(self, gpu: str) -> Path | None:
        """Return a GPU's device file, if the driver knows the GPU."""
        for information in sorted(self.proc.glob("gpus/*/information")):
            text = information.read_text(errors="replace")
            minor = re.search(r"^Device Minor:\s*(\d+)\s*$", text, re.MULTILINE)
            if minor and re.search(rf"^GPU UUID:\s*{re.escape(gpu)}\s*$", text, re.MULTILINE):
                return self.devices / f"nvidia{minor[1]}"
        return None

    def _shared(self, nodes: Sequence[Path]) -> list[dict[str, Any]]:
        shared = [self.devices / name for name in SHARED_NODES]
        found = []
        for node in (*nodes, *shared):
            if node.is_char_device():
                found.append({"path": f"/dev/{node.name}", "hostPath": str(node)})
            elif node.name not in OPTIONAL_NODES:
                raise HostError(f"{node} is missing: run `nvidia-modprobe -u -c 0` as root")
        return found

    def _mounts(self) -> Iterator[dict[str, Any]]:
        """Give the driver's libraries, each under its own name and the one it is asked for by."""
        version = self._version()
        folder = next((f for f in self._folders() if _is_of(f / FIRST, version)), None)
        if folder is None:
            raise HostError(
                f"no {FIRST} of the driver {version or ''} that runs: install its libraries, "
                "or name their folder to the loader (/etc/ld.so.conf.d)"
            )
        for pattern in (*REQUIRED, *OPTIONAL):
            paths = [path for path in sorted(folder.glob(pattern)) if _is_of(path, version)]
            if not paths and pattern in REQUIRED:
                raise HostError(f"{folder} has no {pattern} of the driver {version}")
            for path in paths:
                real = path.resolve()
                for name in dict.fromkeys((real.name, path.name)):
                    yield {"hostPath": str(real), "containerPath": f"{LIBRARIES}/{name}"}

    def _version(self) -> str:
        """Return the version of the driver in the kernel, or nothing if it does not say."""
        file = self.proc / "version"
        text = file.read_text(errors="replace") if file.is_file() else ""
        match = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
        return match[1] if match else ""

    def _folders(self) -> list[Path]:
        """Return where the driver's libraries may be, those that the loader knows first."""
        return list(self.libraries) or list(dict.fromkeys([*_loader_folders(), *FOLDERS]))


def _is_of(library: Path, version: str) -> bool:
    """Whether a library is there and belongs to a driver's version."""
    return library.is_file() and library.resolve().name.endswith(version)


def _loader_folders() -> list[Path]:
    """Return the folders in which the loader finds the driver, in its order (ldconfig(8))."""
    program = shutil.which("ldconfig") or shutil.which("ldconfig", path="/usr/sbin:/sbin")
    if program is None:
        return []
    result = subprocess.run(  # noqa: S603 - the loader's own tool
        [program, "-p"], capture_output=True, text=True, check=False, timeout=30
    )
    pattern = rf"^\s*{re.escape(FIRST)} \([^)]*(?:x86-64|AArch64)[^)]*\) => (\S+)$"
    return [Path(path).parent for path in re.findall(pattern, result.stdout, re.MULTILINE)]
