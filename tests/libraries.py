"""Shared libraries without code, for tests of what loads and what does not."""

from __future__ import annotations

import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MACHINES = {"x86_64": 62, "aarch64": 183}
PAGE = 0x10000
LOAD, DYNAMIC, STACK = 1, 2, 0x6474E551
NEEDED, HASH, STRTAB, SYMTAB, STRSZ, SYMENT, SONAME = 1, 4, 5, 6, 10, 11, 14
READ_WRITE = 6
HEADER, SEGMENT, SYMBOL, TAG = 64, 56, 24, 16


def write_library(path: Path, *, needs: tuple[str, ...] = ()) -> None:
    """Write an ELF library named like its file, which loads once all that it needs is loaded.

    Source: System V ABI, chapters 4 (object files) and 5 (dynamic linking).
    """
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (path.name, *needs))
    offsets = [names.index(name.encode() + b"\0") for name in needs]
    symbols = HEADER + 3 * SEGMENT
    table = symbols + SYMBOL
    strings = table + 16
    dynamic = -(-(strings + len(names)) // 8) * 8
    tags = [(SONAME, 1), *((NEEDED, offset) for offset in offsets)]
    tags += [(HASH, table), (STRTAB, strings), (SYMTAB, symbols), (STRSZ, len(names))]
    tags += [(SYMENT, SYMBOL), (0, 0)]
    end = dynamic + TAG * len(tags)
    data = _header() + _segment(LOAD, 0, end) + _segment(DYNAMIC, dynamic, end - dynamic)
    data += _segment(STACK, 0, 0) + bytes(SYMBOL) + struct.pack("<4I", 1, 1, 0, 0) + names
    data = data.ljust(dynamic, b"\0") + b"".join(struct.pack("<2Q", *tag) for tag in tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _header() -> bytes:
    machine = MACHINES[platform.machine()]
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, HEADER, 0, 0, HEADER, SEGMENT, 3, 0, 0, 0
    )


def _segment(kind: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, READ_WRITE, offset, offset, offset, size, size, PAGE)
