"""What this machine is: its kernel, architecture, NVIDIA driver and GPUs.

- The driver's management library (NVML) is asked first, `nvidia-smi` where it is not to be had.
- No library and no `nvidia-smi` means no GPU; one that is there and fails is an error that says so.
- A host that has no GPU has none for any image, whatever its driver: then no driver is told.
- What a driver cannot tell (`[N/A]`, `[GPU is lost]`) is not known; without a driver's version
  nothing is.
- `CURATOR_OVERRIDE_DRIVER`, `CURATOR_OVERRIDE_GPU` (names with commas between, or `none`) and
  `CURATOR_OVERRIDE_ARCH` go before what is found: they describe another machine, whose architecture
  is that of its GPUs where it is not told.
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
from curator.resolve import Gpu, Host, architecture, architecture_of, called, driver, gpu
from curator.smoke import HostFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FIELDS = ("name", "uuid", "compute_cap", "memory.total", "driver_version")
MIB = 1024**2
TIMEOUT_S = 30
DOCKER_TIMEOUT_S = 10
_NUMBERS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}")
OVERRIDES = ("CURATOR_OVERRIDE_DRIVER", "CURATOR_OVERRIDE_GPU", "CURATOR_OVERRIDE_ARCH")

T = TypeVar("T")
Row = dict[str, str]


def this_host(environ: Mapping[str, str]) -> Host:
    """Return this machine as the resolver sees it, or the one that the overrides describe.

    Raises:
        HostError: there is a driver, but it does not answer.
        InputError: an override says nothing that is known.
    """
    chosen = {name: environ[name] for name in OVERRIDES if environ.get(name)}
    number = _read("CURATOR_OVERRIDE_DRIVER", chosen, driver)
    gpus = _read("CURATOR_OVERRIDE_GPU", chosen, _gpus)
    named = _read("CURATOR_OVERRIDE_ARCH", chosen, architecture)
    found = Host() if number is not None and gpus is not None else driver_and_gpus()
    told = found.gpus if gpus is None else gpus
    has_none = not told and (gpus is not None or found.driver is not None)
    return replace(
        found,
        driver=None if has_none else number or found.driver,
        gpus=told,
        architecture=named or (architecture_of(gpus) if gpus else os.uname().machine),
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
    rows = _rows(FIELDS)
    found = [_tested(row) for row in rows]
    gpus = tuple(one for one in found if one.name and one.uuid and one.sm)
    if rows and not gpus:
        raise HostError(
            f"nvidia-smi names no GPU that answers: it says {', '.join(rows[0].values())}"
        )
    return HostFacts(
        gpus=gpus,
        driver=_driver(rows),
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
    """Ask `nvidia-smi`; a GPU that does not answer keeps its place, and nothing is known of it."""
    rows = _rows(("name", "driver_version", "compute_cap"))
    gpus = tuple(_named(_known(row, "name"), _known(row, "compute_cap")) for row in rows)
    return Host(driver=_driver(rows), gpus=gpus)


def _named(name: str, sm: str) -> Gpu:
    """Return the GPU that a driver calls so; what it says of its compute capability counts."""
    found = called(name)
    return replace(found, sm=sm) if _NUMBERS.fullmatch(sm) else found


def _tested(row: Row) -> smoke.Gpu:
    """Return a GPU as evidence names it; one that shares the host's memory does not tell its size.

    Source: github.com/mostlygeek/llama-swap/issues/782 (GB10), read 2026-11-28.
    """
    name, memory = _known(row, "name"), _known(row, "memory.total")
    return smoke.Gpu(
        name=name,
        uuid=_known(row, "uuid"),
        sm=_named(name, _known(row, "compute_cap")).sm or "",
        memory_bytes=int(memory) * MIB if memory.isdecimal() else 0,
    )


def _driver(rows: Sequence[Row]) -> str | None:
    """Return the version of the driver, which is the same for every GPU that tells it."""
    versions = [row["driver_version"] for row in rows]
    found = next((text for text in versions if _NUMBERS.fullmatch(text)), None)
    if rows and found is None:
        raise HostError(f"nvidia-smi says {versions[0]} for the driver's version: see `dmesg`")
    return found


def _rows(fields: Sequence[str]) -> list[Row]:
    """Return what `nvidia-smi` tells of each GPU; drivers before 510 tell no compute capability."""
    try:
        return _nvidia_smi(fields)
    except HostError as error:
        if "compute_cap" not in str(error):
            raise
        return _nvidia_smi([field for field in fields if field != "compute_cap"])


def _nvidia_smi(fields: Sequence[str]) -> list[Row]:
    """Return a row per GPU; asked by field, since the table for people changes its words."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = f"--query-gpu={','.join(fields)}"
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(  # noqa: S603 - NVIDIA's own program
            command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(
            f"nvidia-smi is there but fails ({_why(error)}): check the driver"
        ) from error
    rows = [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def _known(row: Row, field: str) -> str:
    """Return what a row tells, or nothing where it says why not, as `[N/A]`."""
    cell = row.get(field, "")
    return "" if cell.startswith("[") else cell


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
