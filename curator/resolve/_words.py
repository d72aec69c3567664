r"""What people type and paste about a machine, as values.

- What `nvidia-smi` prints is read as its drivers 418 to 615 print it: the table, `-q`, `-L`, and
  `--query-gpu` with or without its header. The same machine reads the same in each of them, as far
  as they say the same.
- A line of values without a header counts where a driver, capability, index or UUID is in it, and
  after everything that is sure.
- Two machines are never mixed: where parts of a text contradict each other, that is said.
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

from curator.compat import begins
from curator.resolve._names import architecture_of, called, is_brand, is_name, squeezed
from curator.resolve._values import Gpu, Host

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["pasted"]

MAX_TEXT: Final = 1024 * 1024
MAX_GPUS: Final = 64

_VERSION = re.compile(
    r"\b(?:driver|kmd) version ?: ?([3-9][0-9]{2}\.[0-9.]{1,9})", re.IGNORECASE | re.ASCII
)
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BUS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
_LISTED = re.compile(r"GPU ([0-9]{1,3}): ([^()\n]{1,100}?) ?\(UUID:")
_ASKED = re.compile(r"--query-gpu[= ]([A-Za-z0-9_.,]{1,2000})")
_UNIT = re.compile(r" ?\[[^\]]{0,20}\]$")
_DOTTED = re.compile(r"[3-9][0-9]{2}\.[0-9]{2,3}(?:\.[0-9]{2})?")
_COMPUTE = re.compile(r"[0-9]{1,2}\.[0-9]")
_PLACE = re.compile(r"[0-9]{1,2}|GPU-[0-9A-Fa-f-]{1,40}")
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
    """What one part of a text says of a machine."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None


def pasted(text: str) -> Host:
    """Return the host that a text of `nvidia-smi` is about.

    On WSL the driver is the one of Windows, as NVIDIA's library says it there.

    Raises:
        ValueError: there is nothing about a host in it, or it is about several; the message says
            what it is instead.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters are more than nvidia-smi prints")
    lines = _lines(text)
    plain = "\n".join(lines)
    found = [*_list(plain), *_log(plain), *_table(lines), *_values(lines)]
    headers = (match[1].rstrip(".") for match in _VERSION.finditer(plain))
    number = _one_driver([*headers, *(one.driver for one in found if one.driver)])
    gpus = _one_machine([one.gpus for one in found if one.gpus])
    if not gpus and number is None:
        if not _DOTTED.fullmatch(plain.strip()):
            raise ValueError(_nothing(plain))
        number = plain.strip()
    return Host(driver=number, gpus=gpus, architecture=architecture_of(gpus))


def _lines(text: str) -> list[str]:
    """Return the lines of a text without colours and marks of quotation."""
    plain = _ESCAPE.sub("", _LINE_END.sub("\n", text.replace("\ufeff", "")))
    return [squeezed(line) for line in _QUOTED.sub("", plain).split("\n") if line]


def _one_driver(numbers: Sequence[str]) -> str | None:
    """Return the driver that all numbers are of, of which some may be cut."""
    longest = max(numbers, key=len, default=None)
    for number in numbers:
        if longest is not None and not begins(longest, number):
            raise ValueError(
                f"it is about two drivers, {number} and {longest}: paste what one machine says"
            )
    return longest


def _one_machine(readings: Sequence[tuple[Gpu, ...]]) -> tuple[Gpu, ...]:
    """Return the reading that says most of the machine that all are of."""
    most = max(readings, key=lambda gpus: (len(gpus), sum(1 for one in gpus if one.sm)), default=())
    for gpus in dict.fromkeys(readings):
        if not _are_among(gpus, most):
            raise ValueError(
                f"it is about two machines, one with {_shown(gpus)} and one with {_shown(most)}: "
                "paste what one of them says"
            )
    return most


def _are_among(few: Iterable[Gpu], many: Iterable[Gpu]) -> bool:
    left = list(many)
    for one in few:
        same = next((other for other in left if _can_be_same(one, other)), None)
        if same is None:
            return False
        left.remove(same)
    return True


def _can_be_same(one: Gpu, other: Gpu) -> bool:
    """Return whether nothing that is known of two GPUs is different; names may be cut."""
    pairs = [(one.sm, other.sm), (one.kind, other.kind)]
    if not any((name or "..").endswith("..") for name in (one.name, other.name)):
        pairs.append((one.name, other.name))
    return all(left == right or left is None or right is None for left, right in pairs)


def _shown(gpus: Iterable[Gpu]) -> str:
    return ", ".join(list(dict.fromkeys(one.name or one.sm or "a GPU" for one in gpus))[:3])


def _nothing(text: str) -> str:
    said = text.lower().replace("\u2019", "'")
    for pattern, sentence in _FAILURES:
        if pattern in said:
            return sentence
    return (
        "nothing of nvidia-smi in it: paste what `nvidia-smi` prints, or "
        "`nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv`"
    )


def _machines(found: Iterable[tuple[str, Gpu]]) -> Iterator[_Read]:
    """Yield the GPUs of each machine; a place that comes again is of the next one."""
    gpus: dict[str, Gpu] = {}
    for place, one in found:
        if place in gpus:
            yield _Read(tuple(gpus.values()))
            gpus = {}
        if len(gpus) < MAX_GPUS:
            gpus[place] = one
    yield _Read(tuple(gpus.values()))


def _table(lines: Iterable[str]) -> Iterator[_Read]:
    """Read the rows of the table: a number, a name and a state, then the bus that it is on."""
    pairs = (pair for line in lines for pair in pairwise(line.split("|")))
    words = (left.split() for left, right in pairs if _BUS.match(right.strip()))
    return _machines(
        (row[0], _cell(row[1:])) for row in words if len(row) > 1 and _is_number(row[0])
    )


def _cell(words: Sequence[str]) -> Gpu:
    """Return the GPU of a table's cell, in which a state may stand behind its name."""
    has_state = words[-1] in _STATES and len(words) > 1
    return _unless_error(" ".join(words[:-1] if has_state else words))


def _list(text: str) -> Iterator[_Read]:
    """Read `nvidia-smi -L`; MIG devices are parts of the GPU above them."""
    return _machines((match[1], _unless_error(match[2])) for match in _LISTED.finditer(text))


def _log(text: str) -> Iterator[_Read]:
    """Read `nvidia-smi -q`: a GPU's heading, then its name, before other products' names."""
    for part in text.split("Attached GPUs"):
        yield from _machines(_headed(part.split("\n")))


def _headed(lines: Iterable[str]) -> Iterator[tuple[str, Gpu]]:
    bus = ""
    for line in lines:
        name, _, value = line.partition(":")
        if line.startswith("GPU ") and _BUS.match(line[4:]):
            bus = line
        elif bus and name.strip() == "Product Name":
            yield bus, _unless_error(value.strip())
            bus = ""


def _values(lines: Iterable[str]) -> Iterator[_Read]:
    """Read `--query-gpu` with `--format=csv`: by its header, its command, or last by its look."""
    queries: list[tuple[list[str], list[list[str]]]] = []
    loose: list[list[str]] = []
    for line in lines:
        row = _row(line)
        names = _columns(line, row)
        if names is not None:
            queries.append((names, []))
        elif queries and len(row) == len(queries[-1][0]):
            queries[-1][1].append(row)
        elif not queries or queries[-1][0]:
            loose.append(row)
    for columns, rows in queries:
        yield from _together(_told(columns, row) for row in rows)
    yield from _together(_loose(row) for row in loose)


def _together(rows: Iterable[_Read | None]) -> Iterator[_Read]:
    """Yield the GPUs of rows as one machine's, and each driver, which have to be the same."""
    told = [found for found in rows if found]
    yield _Read(tuple(gpu for found in told for gpu in found.gpus)[:MAX_GPUS])
    yield from (_Read((), found.driver) for found in told)


def _columns(line: str, row: Sequence[str]) -> list[str] | None:
    """Return the columns that a line announces; none of them for a query of something else."""
    command = _ASKED.search(line)
    if command:
        return command[1].lower().split(",")
    names = [_UNIT.sub("", cell).lower() for cell in row]
    if not _ABOUT & set(names):
        return None
    return [] if "pid" in names else names


def _row(line: str) -> list[str]:
    if "|" in line or len(line) > MAX_TEXT // 64:
        return []
    if '"' not in line:
        return [cell.strip() for cell in line.split(",")] if line else []
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True), [])]
    except csv.Error:
        return []


def _told(columns: Sequence[str], row: Sequence[str]) -> _Read | None:
    """Return what a row of a query tells; None if it is any line of text."""
    cells = dict(zip(columns, row, strict=True))
    name = cells.get("name", cells.get("gpu_name"))
    number = cells.get("driver_version", cells.get("kmd_version", ""))
    sm = cells.get("compute_cap")
    known = number if _DOTTED.fullmatch(number) else None
    if known is None and not any(_is_telling(cell) for cell in (name, sm) if cell is not None):
        return None
    if name is None and sm is None:
        return _Read((), known)
    return _Read((_with(_unless_error(name or ""), sm),), known)


def _is_telling(cell: str) -> bool:
    return _is_error(cell) or is_brand(cell) or _COMPUTE.fullmatch(cell) is not None


def _loose(row: Sequence[str]) -> _Read | None:
    """Return what a row tells that nothing announces; None if it is any line of text."""
    sm = next((cell for cell in row if _COMPUTE.fullmatch(cell)), None)
    known = next((cell for cell in row if _DOTTED.fullmatch(cell)), None)
    if not (sm or known or any(_PLACE.fullmatch(cell) for cell in row)):
        return None
    name = next((cell for cell in row if is_name(cell)), None)
    return _Read((_with(called(name), sm),), known) if name else None


def _with(found: Gpu, sm: str | None) -> Gpu:
    """Return a GPU with the compute capability that its driver says."""
    return replace(found, sm=sm) if sm and _COMPUTE.fullmatch(sm) else found


def _unless_error(name: str) -> Gpu:
    """Return the GPU of a name, which a driver that fails leaves out."""
    return Gpu() if _is_error(name) else called(name)


def _is_error(cell: str) -> bool:
    return cell in {"", "ERR!", "Unknown Error"} or cell.startswith("[")


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 3  # noqa: PLR2004 - no machine has 1000
