"""What this machine is: its kernel, architecture, NVIDIA driver and GPUs.

- The driver's management library (NVML) is asked first, `nvidia-smi` where it is not to be had.
- No library and no `nvidia-smi` means no GPU; one that is there and fails is an error that says so.
- `CURATOR_OVERRIDE_DRIVER`, `CURATOR_OVERRIDE_GPU` (names with commas between, or `none`) and
  `CURATOR_OVERRIDE_ARCH` go before what is found: they describe another machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from curator import smoke
from curator.errors import Diagnostic, HostError, InputError
from curator.resolve import Gpu, Host, driver, gpu
from curator.smoke import HostFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

QUERY = "name,uuid,compute_cap,memory.total,driver_version"
MIB = 1024**2
TIMEOUT_S = 30
DOCKER_TIMEOUT_S = 10
_NUMBERS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}")
OVERRIDES = ("CURATOR_OVERRIDE_DRIVER", "CURATOR_OVERRIDE_GPU", "CURATOR_OVERRIDE_ARCH")
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

T = TypeVar("T")


def this_host(environ: Mapping[str, str]) -> Host:
    """Return this machine as the resolver sees it, or the one that the overrides describe.

    Raises:
        HostError: there is a driver, but it does not answer.
        InputError: an override says nothing that is known.
    """
    chosen = {name: environ[name] for name in OVERRIDES if environ.get(name)}
    number = _read("CURATOR_OVERRIDE_DRIVER", chosen, driver)
    gpus = _read("CURATOR_OVERRIDE_GPU", chosen, _gpus)
    architecture = _read("CURATOR_OVERRIDE_ARCH", chosen, _architecture)
    found = Host() if number is not None and gpus is not None else driver_and_gpus()
    return replace(
        found,
        driver=found.driver if number is None else number,
        gpus=found.gpus if gpus is None else gpus,
        architecture=os.uname().machine if architecture is None else architecture,
        docker=None if chosen else _docker(),
    )


def driver_and_gpus() -> Host:
    """Return what NVIDIA's driver here says, and nothing else of this machine.

    Raises:
        HostError: there is a driver, but it does not answer.
    """
    return _from_library() or _from_program()


def host_facts() -> HostFacts:
    """Return the facts of this machine; no `nvidia-smi` means no GPU.

    Raises:
        HostError: there is a driver, but it does not answer.
    """
    machine = os.uname()
    rows = _nvidia_smi(QUERY)
    return HostFacts(
        gpus=tuple(
            smoke.Gpu(name=name, uuid=uuid, sm=sm, memory_bytes=int(memory) * MIB)
            for name, uuid, sm, memory, _ in rows
        ),
        driver=rows[0][4] if rows else None,
        kernel=machine.release,
        architecture=machine.machine,
    )


def _read(name: str, chosen: Mapping[str, str], reading: Callable[[str], T]) -> T | None:
    if name not in chosen:
        return None
    try:
        return reading(chosen[name])
    except ValueError as error:
        raise InputError(Diagnostic(code="setting", message=f"{name}: {error}")) from error


def _gpus(text: str) -> tuple[Gpu, ...]:
    names = [name.strip() for name in text.split(",")]
    return () if names == ["none"] else tuple(gpu(name) for name in names if name)


def _architecture(text: str) -> str:
    if text not in ARCHITECTURES:
        raise ValueError(f"{text!r} is none of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[text]


def _from_library() -> Host | None:
    """Ask NVML; None where there is none, or nothing that it works with.

    Source: NVML API reference (docs.nvidia.com/deploy/nvml-api).
    """
    try:
        import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - not for a machine without
    except ImportError:
        return None
    try:
        with _opened(pynvml):
            number = str(pynvml.nvmlSystemGetDriverVersion())
            count = pynvml.nvmlDeviceGetCount()
            return Host(driver=number, gpus=tuple(_device(pynvml, n) for n in range(count)))
    except pynvml.NVMLError_LibraryNotFound:
        return None
    except pynvml.NVMLError as error:
        if shutil.which("nvidia-smi"):  # it says more
            return None
        raise HostError(f"the NVIDIA driver is installed but fails ({error}): reboot") from error


@contextmanager
def _opened(library: Any) -> Iterator[None]:  # noqa: ANN401 - it has no types
    library.nvmlInit()
    try:
        yield
    finally:
        library.nvmlShutdown()


def _device(library: Any, number: int) -> Gpu:  # noqa: ANN401 - it has no types
    """Return a GPU; one that fell off its bus keeps its place, and nothing is known of it."""
    try:
        handle = library.nvmlDeviceGetHandleByIndex(number)
        name = str(library.nvmlDeviceGetName(handle))
        major, minor = library.nvmlDeviceGetCudaComputeCapability(handle)
    except library.NVMLError:
        return Gpu()
    return _named(name, f"{major}.{minor}")


def _from_program() -> Host:
    """Ask `nvidia-smi`; those of drivers before 510 do not tell compute capabilities."""
    try:
        rows = _nvidia_smi("name,driver_version,compute_cap")
    except HostError:
        rows = [[*row, ""] for row in _nvidia_smi("name,driver_version")]
    gpus = tuple(_named(name, sm) for name, _, sm in rows)
    return Host(driver=rows[0][1] if rows else None, gpus=gpus)


def _named(name: str, sm: str) -> Gpu:
    """Return the GPU that a driver calls so; what it says of its compute capability counts."""
    try:
        found = gpu(name)
    except ValueError:
        found = Gpu(name=name)
    return replace(found, sm=sm) if sm.replace(".", "").isdecimal() else found


def _nvidia_smi(query: str) -> list[list[str]]:
    """Return a row per GPU; asked by field, since the table for people changes its words."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(  # noqa: S603 - NVIDIA's own program
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(
            f"nvidia-smi is there but fails ({_why(error)}): check the driver"
        ) from error
    rows = [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines()]
    return [row for row in rows if len(row) == len(query.split(","))]


def _why(error: OSError | subprocess.SubprocessError) -> str:
    """Return what a program printed before it failed, if it did."""
    printed = (getattr(error, "stdout", "") or "") + (getattr(error, "stderr", "") or "")
    lines = printed.strip().splitlines() if isinstance(printed, str) else []
    return lines[0] if lines else str(error)


def _docker() -> str | None:
    """Return the version of the engine that docker's client talks to, if it answers.

    Its numbers alone: distributions add a suffix of their own, as in `26.1.5+dfsg1`.
    """
    client = shutil.which("docker")
    if client is None:
        return None
    answer = _output([client, "version", "--format", "{{json .Server}}"])
    try:
        found = _NUMBERS.match(str((json.loads(answer) or {})["Version"]))
        return found[0] if found else None
    except (ValueError, KeyError, TypeError):
        return None


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(  # noqa: S603 - docker's own client
            command, capture_output=True, text=True, check=False, timeout=DOCKER_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
