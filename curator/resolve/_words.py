r"""What people type and paste about a machine, as values.

- What `nvidia-smi` prints is read as its drivers 418 to 615 print it: the table, `-q`, `-L`, and
  `--query-gpu` with or without its header. The same machine reads the same in each of them, as far
  as they say the same.
- Whatever the text, it is read in time that grows with its length, or `ValueError` says what to do.
- What people type about a GPU or a driver is read by `curator.resolve._names`.

>>> pasted("name, driver_version\nNVIDIA H200, 580.95.05").driver
'580.95.05'
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from curator.resolve._names import architecture_of, called, driver, gpu, is_name
from curator.resolve._values import Gpu, Host

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["architecture_of", "called", "driver", "gpu", "pasted"]

MAX_TEXT: Final = 1024 * 1024
MAX_GPUS: Final = 64

_VERSION = re.compile(r"\b(?:driver|kmd) version\s*:\s*([3-9][0-9]{2}\.[0-9.]{1,9})", re.IGNORECASE)
_BUS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
_LISTED = re.compile(r"GPU ([0-9]{1,3}): ([^()\n]{1,100}?) ?\(UUID:")
_ASKED = re.compile(r"--query-gpu[= ]([A-Za-z0-9_.,]{1,2000})")
_UNIT = re.compile(r" ?\[[^\]]{0,20}\]$")
_DOTTED = re.compile(r"[3-9][0-9]{2}\.[0-9]{2,3}(?:\.[0-9]{2})?")
_COMPUTE = re.compile(r"[0-9]{1,2}\.[0-9]")
_ABOUT: Final = frozenset({"name", "gpu_name", "driver_version", "kmd_version", "compute_cap"})
_ESCAPE = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_QUOTED = re.compile(r"^(?:> ?){1,8}", re.MULTILINE)
_STATES: Final = frozenset({"On", "Off", "N/A", "WDDM", "TCC", "MCDM", "ERR!", "Enabled"})

# What nvidia-smi and shells say in place of an answer, and what to do then.
_FAILURES: Final = (
    (
        "couldn't communicate with the nvidia driver",
        "the NVIDIA driver is not loaded: install it and reboot, or sudo modprobe nvidia",
    ),
    (
        "driver/library version mismatch",
        "the driver was updated while an older one is loaded: reboot",
    ),
    (
        "failed to initialize nvml: unknown error",
        "the container lost its GPUs: start it again, or give it /dev/nvidia* (--device)",
    ),
    ("failed to initialize nvml", "NVIDIA's management library does not start: see `dmesg`"),
    (
        "unable to determine the device handle",
        "a GPU does not answer any more (see `dmesg | grep Xid`): reboot, or reseat it",
    ),
    ("no devices were found", "nvidia-smi found no GPU that works: `dmesg | grep NVRM` says why"),
    ("not found", "there is no nvidia-smi: install the NVIDIA driver"),
    ("not recognized as", "there is no nvidia-smi: install the NVIDIA driver"),
    ("is not a valid field", "this nvidia-smi does not know a field of the query: run it without"),
)


@dataclass(frozen=True, slots=True)
class _Read:
    """What one reading of a text found."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None


def pasted(text: str) -> Host:
    """Return the host that a text of `nvidia-smi` is about.

    On WSL the driver is the one of Windows, as NVIDIA's library says it there.

    Raises:
        ValueError: there is nothing about a host in it; the message says what it is instead.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters are more than nvidia-smi prints")
    plain = _QUOTED.sub("", _ESCAPE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    lines = plain.splitlines()
    asked, listed, table, query = _values(lines), _list(plain), _table(lines), _log(lines)
    version = _VERSION.search(plain)
    number = asked.driver or (version[1].rstrip(".") if version else None)
    ways = (asked, listed, query, table)
    gpus = max((found.gpus for found in ways), key=len)
    if not gpus and number is None:
        if not _DOTTED.fullmatch(plain.strip()):
            raise ValueError(_nothing(plain))
        number = plain.strip()
    return Host(driver=number, gpus=gpus, architecture=architecture_of(gpus))


def _nothing(text: str) -> str:
    said = text.lower().replace("\u2019", "'")
    for pattern, sentence in _FAILURES:
        if pattern in said:
            return sentence
    return (
        "nothing of nvidia-smi in it: paste what `nvidia-smi` prints, or "
        "`nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv`"
    )


def _table(lines: Iterable[str]) -> _Read:
    """Read the rows of the table: a number, a name and a state, then the bus that it is on."""
    gpus: dict[int, Gpu] = {}
    for line in lines:
        cells = line.split("|")
        for left, right in pairwise(cells):
            if not _BUS.match(right.strip()):
                continue
            words = left.split()
            if len(words) < 2 or not _is_number(words[0]):  # noqa: PLR2004 - a number and a name
                continue
            name = words[1:-1] if words[-1] in _STATES and len(words) > 2 else words[1:]  # noqa: PLR2004
            number = int(words[0])
            if number in gpus or len(gpus) == MAX_GPUS:  # the same, or another machine, again
                return _Read(tuple(gpus.values()))
            gpus[number] = _unless_error(" ".join(name))
    return _Read(tuple(gpus.values()))


def _list(text: str) -> _Read:
    """Read `nvidia-smi -L`; MIG devices are parts of the GPU above them."""
    gpus: dict[int, Gpu] = {}
    for match in _LISTED.finditer(text):
        number = int(match[1])
        if number in gpus or len(gpus) == MAX_GPUS:
            break
        gpus[number] = _unless_error(match[2])
    return _Read(tuple(gpus.values()))


def _log(lines: Iterable[str]) -> _Read:
    """Read `nvidia-smi -q`: a GPU's heading, then its name, before other products' names."""
    gpus: list[Gpu] = []
    begun = False
    for line in lines:
        name, _, value = line.partition(":")
        if line.startswith("GPU ") and _BUS.match(line[4:].strip()):
            begun = True
        elif begun and name.strip() == "Product Name" and len(gpus) < MAX_GPUS:
            gpus.append(_unless_error(value.strip()))
            begun = False
    return _Read(tuple(gpus))


def _values(lines: Iterable[str]) -> _Read:
    """Read `--query-gpu` with `--format=csv`: by its header, its command, or by its look."""
    columns: list[str] | None = None
    gpus: list[Gpu] = []
    numbers: list[str] = []
    for line in lines:
        command = _ASKED.search(line)
        if command:
            columns = command[1].lower().split(",")
            continue
        row = _row(line)
        names = [_UNIT.sub("", cell).lower() for cell in row]
        if _ABOUT & set(names):
            columns = [] if "pid" in names else names
            continue
        found = _told(columns, row) if columns != [] else None
        if found is not None and len(gpus) < MAX_GPUS:
            gpus += found.gpus
            numbers += [found.driver] if found.driver else []
    return _Read(tuple(gpus), numbers[0] if numbers else None)


def _row(line: str) -> list[str]:
    if "|" in line or len(line) > MAX_TEXT // 64:
        return []
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True), [])]
    except csv.Error:
        return []


def _told(columns: list[str] | None, row: list[str]) -> _Read | None:
    """Return what a line of values tells, or None if it is no such line."""
    if columns is not None and len(columns) == len(row):
        cells = dict(zip(columns, row, strict=True))
        name = cells.get("name", cells.get("gpu_name"))
        number = cells.get("driver_version") or cells.get("kmd_version")
        sm = cells.get("compute_cap")
        known = number if number and _DOTTED.fullmatch(number) else None
        if name is None and sm is None:
            return _Read((), known) if known else None
    else:
        name = next((cell for cell in row if is_name(cell)), None)
        sm = next((cell for cell in row if _COMPUTE.fullmatch(cell)), None)
        known = next((cell for cell in row if _DOTTED.fullmatch(cell)), None)
        if name is None or len(row) < 2:  # noqa: PLR2004 - a name alone is any line of text
            return None
    found = _unless_error(name or "")
    if sm and _COMPUTE.fullmatch(sm):
        found = replace(found, sm=sm)
    return _Read((found,), known)


def _unless_error(name: str) -> Gpu:
    """Return the GPU of a name, which a driver that fails leaves out."""
    return Gpu() if name in {"", "ERR!", "Unknown Error", "[Unknown Error]"} else called(name)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 3  # noqa: PLR2004 - no machine has 1000
