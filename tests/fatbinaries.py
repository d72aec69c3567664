"""Shared libraries with fatbinaries in them, for tests of what can be read from those.

Source: System V ABI, chapter 4, for ELF; the fatbinary's layout is not published, and is the one
that NVIDIA's `cuobjdump` reads in these files.
"""

from __future__ import annotations

import struct

PTX, CUBIN, NVVM = 1, 2, 8
FLAGS = {"": 0x11, "a": 0x100011, "f": 0x200011}
LINKED, RELOCATABLE = ".nv_fatbin", "__nv_relfatbin"
PROGRAM, STRINGS, NO_BITS = 1, 3, 8


def entry(kind: int, target: str, *, payload: bytes = b"code    ", header: int = 64) -> bytes:
    """Return an entry of a container: a header that may be longer than 64 bytes, and code."""
    number = int(target.rstrip("af"))
    flags = FLAGS[target.lstrip("0123456789")]
    head = struct.pack("<HHIQ12xI8xQ", kind, 0x0101, header, len(payload), number, flags)
    return head.ljust(header, b"\0") + payload


def container(*entries: bytes) -> bytes:
    data = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(data)) + data


def library(*sections: tuple[str, bytes], kind: int = PROGRAM) -> bytes:
    """Return an ELF file with these sections.

    Source: System V ABI, chapter 4.
    """
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _ in sections) + b".shstrtab\0"
    data = bytearray(64)
    rows = [bytes(64)]
    for name, content in (*sections, (".shstrtab", names)):
        data += bytes(-len(data) % 8)
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        what = STRINGS if name == ".shstrtab" else kind
        rows.append(struct.pack("<IIQQQQIIQQ", at, what, 0, 0, len(data), len(content), 0, 0, 8, 0))
        data += content
    data += bytes(-len(data) % 8)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    counts = (64, 0, 0, 64, len(rows), len(rows) - 1)
    data[:64] = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, len(data), 0, *counts)
    return bytes(data) + b"".join(rows)


def kernel(*targets: str) -> bytes:
    """Return a container of machine code for these targets; one that begins with `p` is PTX."""
    return container(
        *(
            entry(PTX, name[1:], header=80) if name[0] == "p" else entry(CUBIN, name)
            for name in targets
        )
    )
