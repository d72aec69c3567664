"""The compute capabilities in an image's binaries, read from the headers of their fatbinaries.

A shared library keeps its GPU code in a section of containers, each with an entry for every
target: machine code (cubin) or PTX. The headers are never compressed, so hopping from one to the
next reads a few thousand times 64 bytes of a library of gigabytes. The walk is made here and not
by NVIDIA's `cuobjdump`, which is a program that would have to be brought into every image, and
which takes 13 s and 5.4 GB of memory for PyTorch's main library where this takes 0.01 s and 1 MB.
The tests compare the two on real libraries.

- The framework's own files decide, and of them what most of their containers hold: a target of a
  few kernels is none that an image can be started for. The CUDA libraries' lists stand beside.
- What is not as the format says is an `UnreadableError`: a library is never half read.

Source: the layout is not published. Magic, header size and payload size are as open loaders of
fatbinaries have them; kinds and target suffixes are those that `fatbinary` of CUDA 13.0 writes.
Libraries of CUDA 12 and 13 read as `cuobjdump` reads them; those of CUDA 11 it reads no longer.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
from typing import Dict, Iterable, Iterator, List, NamedTuple, Set, Tuple

from curator.harness._contents import TOOLKIT, library_files
from curator.harness._run import CHECKS, Facts

ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
SECTION_HEADER, NO_BITS = struct.Struct("<IIQQQQIIQQ"), 8
# Linked code, or else what is there for a device linker: the order in which cuobjdump looks.
CODE_SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")
CONTAINER_HEADER, CONTAINER_MAGIC = struct.Struct("<IHHQ"), 0xBA55ED50
# Kind, version, header and payload bytes; then, past 12 bytes, target and flags.
ENTRY_HEADER = struct.Struct("<HHIQ12xI8xQ")
KINDS = {1: "ptx", 2: "cubin"}
SUFFIXES = {0: "", 1: "a", 2: "f"}
SUFFIX_SHIFT = 20
MAX_STEPS = 100000
ZEROS = 4096
# Below this a library's CUDA code is a stub, such as cuFFT's: its kernels are kept otherwise.
STUB_BYTES = 4096
# CUDA's own libraries, which some frameworks carry in their distribution.
CUDA_LIBRARY = re.compile(
    "lib(cu(blas|dart|dnn|dss|fft|file|pti|rand|solver|sparse)|nccl|npp"
    "|nv(blas|jitlink|jpeg|rtc|shmem|ToolsExt|vm))",
    re.IGNORECASE,
)
# libNVVM aborts on a module without a data layout. Source: NVVM IR specification, "Data Layout".
NVVM_MODULE = b"""target datalayout = "e-p:64:64:64-i1:8:8-i8:8:8-i16:16:16-i32:32:32-i64:64:64-\
i128:128:128-f32:32:32-f64:64:64-v16:16:16-v32:32:32-v64:64:64-v128:128:128-n16:32:64"
target triple = "nvptx64-nvidia-cuda"
define void @k() {
  ret void
}
!nvvmir.version = !{!0}
!0 = !{i32 2, i32 0}
"""


class UnreadableError(ValueError):
    """A file's GPU code is not laid out as the format says, or ends too early."""


class Code(NamedTuple):
    """A library's GPU code: containers, bytes, and how many containers hold a target."""

    containers: int
    size: int
    cubin: Dict[str, int]
    ptx: Dict[str, int]


def check_kernels(expected: Facts) -> Facts:
    """Return the targets that the framework's binaries are for, and what stands beside them.

    - `cubin`, `ptx`: targets of at least half of the `containers` in its own files, which are all
      that hold GPU code and are not CUDA's; `partly`: target -> how many, for all others.
    - `own`, `libraries`: path -> targets, of its files and of CUDA's; `unread`: path -> why not.
    - `jit`, `compiles`: a framework without such files compiles its kernels when they are used;
      the compiler, and the targets it has.
    - `gaps`: capability of `cubin` -> files that hold code, but nothing that it loads.

    Raises:
        UnreadableError: a file of the framework cannot be read.
        AssertionError: no GPU code and no compiler, or nothing for `expected["sm_min"]`.
    """
    own, cuda, unread = _read_all()
    facts = _summary(list(own.values()))
    compiler, compiles = ("", []) if own else _compiler()
    floor = expected.get("sm_min")
    if floor:
        offered = (*facts["cubin"], *facts["ptx"], *compiles)
        if not _loads(facts["cubin"], [*facts["ptx"], *compiles], floor):
            raise AssertionError(f"the label promises {floor} on, there is {' '.join(offered)}")
        facts["sm_min"] = floor
    return {
        **facts,
        "own": {path: _lists(code) for path, code in own.items()},
        "jit": compiler,
        "compiles": compiles,
        "libraries": {path: _lists(code) for path, code in cuda.items()},
        "unread": unread,
        "gaps": _gaps(facts["cubin"], {**own, **cuda}),
    }


def architectures(text: str, prefix: str = "sm|compute") -> List[str]:
    """Return the targets in a compiler's list such as `sm_90a compute_120`; `compute` is PTX."""
    found = re.findall(rf"\b(?:{prefix})_(\d{{2,3}})([af]?)\b", text)
    return in_order({_capability(int(number)) + suffix for number, suffix in found})


def in_order(targets: Iterable[str]) -> List[str]:
    """Return targets such as `9.0a` in the order of their numbers."""
    return sorted(targets, key=lambda text: (*_numbers(text), text))


def _numbers(target: str) -> Tuple[int, int]:
    major, minor = target.rstrip("af").split(".")
    return int(major), int(minor)


def _capability(number: int) -> str:
    return f"{number // 10}.{number % 10}"


def _read_all() -> Tuple[Dict[str, Code], Dict[str, Code], Dict[str, str]]:
    """Return the GPU code of the framework's files, of CUDA's, and why others cannot be read."""
    own: Dict[str, Code] = {}
    cuda: Dict[str, Code] = {}
    unread: Dict[str, str] = {}
    seen = set()
    for root, path in library_files():
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        name = os.path.relpath(path, root)
        is_cuda = name.startswith("nvidia/") or root.startswith(TOOLKIT)
        is_cuda = is_cuda or bool(CUDA_LIBRARY.match(os.path.basename(path)))
        try:
            code = read_code(path)
        except UnreadableError as error:
            if not is_cuda:
                raise UnreadableError(f"{name}: {error}") from error
            unread[name] = str(error)
            continue
        if code.cubin or code.ptx:
            (cuda if is_cuda else own)[name] = code
    return own, cuda, unread


def _summary(own: List[Code]) -> Facts:
    total = sum(code.containers for code in own)
    facts: Facts = {"containers": total, "partly": {}}
    for kind in KINDS.values():
        counts: Dict[str, int] = {}
        for code in own:
            for target, count in getattr(code, kind).items():
                counts[target] = counts.get(target, 0) + count
        facts[kind] = in_order({target for target, count in counts.items() if 2 * count >= total})
        rare = {target for target in counts if target not in facts[kind]}
        facts["partly"][kind] = {target: counts[target] for target in in_order(rare)}
    return facts


def _lists(code: Code) -> Facts:
    return {"cubin": in_order(code.cubin), "ptx": in_order(code.ptx)}


def _gaps(cubin: List[str], files: Dict[str, Code]) -> Facts:
    """Return each capability that the framework has machine code for -> the files that have none.

    A file that has nothing for any of them keeps its kernels elsewhere, and tells nothing.
    """
    wanted = [target.rstrip("af") for target in cubin]
    found: Dict[str, List[str]] = {}
    for path, code in files.items():
        missing = [target for target in wanted if not _loads(code.cubin, code.ptx, target)]
        if code.size > STUB_BYTES and len(missing) < len(wanted):
            for target in missing:
                found.setdefault(target, []).append(path)
    return {target: found[target] for target in in_order(found)}


def _loads(cubin: Iterable[str], ptx: Iterable[str], capability: str) -> bool:
    """Say whether a GPU of this capability loads any of these.

    Source: CUDA Programming Guide, "Binary Compatibility", "PTX Compatibility", and "Feature Set
    Compiler Targets" for the suffixes.
    """
    gpu = _numbers(capability)

    def fits(target: str) -> bool:
        own = _numbers(target)
        return own == gpu or (not target.endswith("a") and own[0] == gpu[0] and own <= gpu)

    return any(
        fits(target) or (target in ptx and target[-1].isdigit() and _numbers(target) <= gpu)
        for target in (*cubin, *ptx)
    )


def read_code(path: str) -> Code:
    """Read what targets a shared library holds GPU code for; none if it is no 64-bit ELF file.

    Reads headers alone: some 64 bytes for each target of each container.

    Raises:
        UnreadableError: the file ends too early, or its GPU code is laid out otherwise.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Code(0, 0, {}, {})
        # Without this, Linux reads 128 KiB ahead of each header.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return _code(_File(descriptor, status.st_size))
    finally:
        os.close(descriptor)


class _File:
    """A file that is read in small pieces, each at its place."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._steps = 0

    def read(self, count: int, at: int, end: int) -> bytes:
        """Return `count` bytes at `at`, which have to stand before `end`."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise UnreadableError(f"more than {MAX_STEPS} headers")
        if at + count > min(end, self.size):
            raise UnreadableError(f"{count} bytes at {at} go beyond byte {min(end, self.size)}")
        data = os.pread(self._descriptor, count, at)
        if len(data) < count:
            raise UnreadableError(f"{count} bytes at {at} cannot be read")
        return data


def _code(file: _File) -> Code:
    found: Dict[bytes, List[Tuple[int, int]]] = {name: [] for name in CODE_SECTIONS}
    for name, at, size in _sections(file):
        if name in found and size:
            found[name].append((at, at + size))
    linked, relocatable = (found[name] for name in CODE_SECTIONS)
    counts: Dict[str, Dict[str, int]] = {kind: {} for kind in KINDS.values()}
    containers = size = 0
    for at, end in linked or relocatable:
        size += end - at
        for targets in _containers(file, at, end):
            containers += bool(targets)
            for kind, target in targets:
                counts[kind][target] = counts[kind].get(target, 0) + 1
    return Code(containers, size, counts["cubin"], counts["ptx"])


def _sections(file: _File) -> Iterator[Tuple[bytes, int, int]]:
    """Yield (name, offset, bytes) of each section that has a place in the file.

    Source: System V ABI, chapter 4: section 0 has the numbers that are too large for the header.
    """
    if file.size < len(ELF64_LITTLE_ENDIAN) or file.read(6, 0, 6) != ELF64_LITTLE_ENDIAN:
        return
    header = file.read(64, 0, 64)
    (table,) = struct.unpack_from("<Q", header, 40)
    width, count, names = struct.unpack_from("<HHH", header, 58)
    if not table:
        return
    if width != SECTION_HEADER.size:
        raise UnreadableError(f"section headers of {width} bytes")
    first = SECTION_HEADER.unpack(file.read(width, table, file.size))
    count, names = count or first[5], first[6] if names == 0xFFFF else names
    if names >= count:
        raise UnreadableError("no table of section names")
    strings = SECTION_HEADER.unpack(file.read(width, table + width * names, file.size))
    for number in range(count):
        row = SECTION_HEADER.unpack(file.read(width, table + width * number, file.size))
        at = strings[4] + row[0]
        longest = max(map(len, CODE_SECTIONS)) + 1
        name = file.read(max(0, min(longest, strings[4] + strings[5] - at)), at, file.size)
        if row[1] != NO_BITS:
            yield name.partition(b"\0")[0], row[4], row[5]


def _containers(file: _File, at: int, end: int) -> Iterator[Set[Tuple[str, str]]]:
    """Yield the targets of each container in a section."""
    while at < end:
        data = file.read(min(ZEROS, end - at), at, end)
        zeros = len(data) - len(data.lstrip(b"\0"))
        at += zeros
        if zeros == len(data):
            continue
        magic, version, header, size = CONTAINER_HEADER.unpack(
            file.read(CONTAINER_HEADER.size, at, end)
        )
        if magic != CONTAINER_MAGIC or version != 1 or header < CONTAINER_HEADER.size:
            raise UnreadableError(f"no container at {at}")
        if header + size > end - at:
            raise UnreadableError(f"the container at {at} goes beyond its section")
        yield set(_targets(file, at + header, at + header + size))
        at += -(-(header + size) // 8) * 8


def _targets(file: _File, at: int, end: int) -> Iterator[Tuple[str, str]]:
    """Yield (kind, target) of each entry of a container; kinds other than cubin and PTX are none.

    Kind 8 is NVVM's own form, for linkers.
    """
    while at < end:
        kind, _, header, size, number, flags = ENTRY_HEADER.unpack(
            file.read(ENTRY_HEADER.size, at, end)
        )
        suffix = SUFFIXES.get(flags >> SUFFIX_SHIFT & 3)
        if header < ENTRY_HEADER.size or not 10 <= number < 1000 or suffix is None:
            raise UnreadableError(f"no entry at {at}")
        if header + size > end - at:
            raise UnreadableError(f"the entry at {at} goes beyond its container")
        if kind in KINDS:
            yield KINDS[kind], _capability(number) + suffix
        at += header + size


def _compiler() -> Tuple[str, List[str]]:
    """Return the compiler of a framework that has no kernels, and its targets, without a GPU.

    Where an image has NVVM, its framework compiles with that, and NVRTC is there for sources in C.
    """
    paths = {re.split(r"\.so", os.path.basename(path))[0]: path for _, path in library_files()}
    for name, ask in (("nvvm", _nvvm_targets), ("nvrtc", _nvrtc_targets)):
        if f"lib{name}" in paths:
            numbers = ask(ctypes.CDLL(paths[f"lib{name}"]))
            if numbers:
                return name, in_order(map(_capability, numbers))
    raise AssertionError("no shared library holds GPU code, and no compiler is there to make any")


def _nvrtc_targets(library: ctypes.CDLL) -> List[int]:
    """Source: NVRTC documentation, nvrtcGetSupportedArchs; since CUDA 11.2."""
    count = ctypes.c_int()
    if library.nvrtcGetNumSupportedArchs(ctypes.byref(count)):
        return []
    numbers = (ctypes.c_int * count.value)()
    return [] if library.nvrtcGetSupportedArchs(numbers) else list(numbers)


def _nvvm_targets(library: ctypes.CDLL) -> List[int]:
    """Try every number, since NVVM has no list. Source: libNVVM API, nvvmVerifyProgram."""
    found = []
    for number in range(30, 200):
        program = ctypes.c_void_p()
        size = ctypes.c_size_t(len(NVVM_MODULE))
        option = (ctypes.c_char_p * 1)(f"-arch=compute_{number}".encode())
        if library.nvvmCreateProgram(ctypes.byref(program)):
            return []
        refused = library.nvvmAddModuleToProgram(program, NVVM_MODULE, size, b"k")
        if not (refused or library.nvvmVerifyProgram(program, 1, option)):
            found.append(number)
        library.nvvmDestroyProgram(ctypes.byref(program))
    return found


CHECKS["kernels"] = check_kernels
