"""Rules of what runs where, each with its source. Pure: versions in, answers out.

- An answer is yes, no or unknown; it names the rule, its source, and the numbers compared.
- Compute capabilities are written `9.0`; a target may have a suffix: `9.0a`, `10.0f`.
- A driver is a whole version, or a branch (`580`) for the newest driver of that branch.
- Forward compatibility packages and Jetson boards have rules of their own: not these.

>>> require_cuda("12.9")
'cuda>=12.0'
>>> kernel("8.9", cubin=("8.0", "8.6"), ptx=()).loads
'sm_86'
>>> kernel("12.0", cubin=("8.0", "9.0"), ptx=()).says
'no'
>>> driver("12.8", "535.54.03", floor="525.60.13", speaks="12.2").rule
'driver-minor'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Says = Literal["yes", "no", "unknown"]
Numbers = tuple[tuple[str, str], ...]

_TARGET = re.compile(r"(\d{1,3})\.(\d)([af]?)")

_BINARY = 'CUDA Programming Guide, "Binary Compatibility"'
_MINOR = 'CUDA Compatibility, "Minor Version Compatibility" (docs.nvidia.com/deploy)'
SOURCES: Final[Mapping[str, str]] = {
    "kernel-cubin": _BINARY,
    "kernel-ptx": 'CUDA Programming Guide, "PTX Compatibility"',
    "kernel-none": _BINARY,
    "gpu-supported": "CUDA Toolkit, Driver, and Architecture Matrix (docs.nvidia.com)",
    "gpu-dropped": "CUDA Toolkit, Driver, and Architecture Matrix (docs.nvidia.com)",
    "driver-floor": _MINOR,
    "driver-native": "CUDA Compatibility: a newer driver runs what older toolkits made",
    "driver-minor": _MINOR,
    "driver-major": _MINOR,
    "ptx-version": "PTX ISA, release history: the PTX version that each driver branch accepts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one rule says of an image on a host.

    `compared` are the numbers looked at, by name; `loads` is the kernel image that the GPU takes
    (`sm_86`, `compute_120`), where the rule is about one.
    """

    says: Says
    rule: str
    compared: Numbers = ()
    loads: str | None = None

    @property
    def source(self) -> str:
        """The document that the rule is from."""
        return SOURCES[self.rule]

    def to_json(self) -> dict[str, Any]:
        """Return the answer for machines."""
        found = {"says": self.says, "rule": self.rule, "source": self.source}
        compared = {"compared": dict(self.compared)} if self.compared else {}
        return {**found, **compared, **({"loads": self.loads} if self.loads else {})}


@lru_cache(maxsize=4096)
def numbers(version: str) -> tuple[int, ...]:
    """Return a dotted version's numbers, for comparing: `535.54.03` -> (535, 54, 3)."""
    return tuple(int(part) for part in version.split("."))


def require_cuda(cuda: str) -> str:
    """Return the `NVIDIA_REQUIRE_CUDA` of an image that carries this CUDA release.

    Inside a major release an image runs on every driver from the family's floor on, which is the
    driver of that major's first release; asking for the exact minor would refuse hosts that can.

    Source: CUDA Compatibility, "Minor Version Compatibility" (docs.nvidia.com); the grammar is
    nvidia-container-toolkit's internal/requirements.
    """
    return f"cuda>={numbers(cuda)[0]}.0"


def require_arch(sm_min: str | None) -> str | None:
    """Return the `NVIDIA_REQUIRE_ARCH` for the lowest compute capability with kernels, if known.

    Source: nvidia-container-toolkit's internal/requirements: `arch` is device 0's capability.
    """
    return f"arch>={sm_min}" if sm_min else None


def kernel(gpu: str, *, cubin: Iterable[str], ptx: Iterable[str]) -> Answer:
    """Say which of an image's kernels a GPU of this compute capability loads.

    The highest cubin of the same major release that is not above the GPU, else the highest PTX
    that is not above it, which the driver compiles (see `accepts_ptx`). A target with the suffix
    `a` is for its own capability alone, one with `f` for its family: the same major release from
    its own minor on. A target that cannot be read makes a no an unknown.

    Source: CUDA Programming Guide, "Binary Compatibility", "PTX Compatibility", and "Feature Set
    Compiler Targets" for the suffixes.
    """
    own = numbers(gpu)
    binaries, texts = [_target(text) for text in cubin], [_target(text) for text in ptx]
    compared = (("gpu", gpu),)
    if fits := [t for t in binaries if t is not None and _loads_cubin(t, own)]:
        return _loaded("kernel-cubin", "sm_", max(fits, key=_closeness), compared)
    if fits := [t for t in texts if t is not None and _compiles_ptx(t, own)]:
        return _loaded("kernel-ptx", "compute_", max(fits, key=_closeness), compared)
    says: Says = "unknown" if None in binaries or None in texts else "no"
    shipped = [t for t in (*binaries, *texts) if t is not None]
    near = (("highest", "{}.{}{}".format(*max(shipped, key=_closeness))),) if shipped else ()
    return Answer(says=says, rule="kernel-none", compared=(*compared, *near))


_Target = tuple[int, int, str]


def _target(text: str) -> _Target | None:
    match = _TARGET.fullmatch(text)
    return (int(match[1]), int(match[2]), match[3]) if match else None


def _closeness(target: _Target) -> tuple[int, int, int]:
    """Order targets by how closely they are made for a GPU: plain, family, its own."""
    return target[0], target[1], ("", "f", "a").index(target[2])


def _loads_cubin(target: _Target, gpu: tuple[int, ...]) -> bool:
    major, minor, suffix = target
    if suffix == "a":
        return (major, minor) == gpu
    return major == gpu[0] and minor <= gpu[1]


def _compiles_ptx(target: _Target, gpu: tuple[int, ...]) -> bool:
    return _loads_cubin(target, gpu) if target[2] else target[:2] <= gpu


def _loaded(rule: str, prefix: str, target: _Target, compared: Numbers) -> Answer:
    major, minor, suffix = target
    kind = "cubin" if prefix == "sm_" else "ptx"
    return Answer(
        says="yes",
        rule=rule,
        compared=(*compared, (kind, f"{major}.{minor}{suffix}")),
        loads=f"{prefix}{major}{minor}{suffix}",
    )


def supported(gpu: str, cuda: str, *, last_cuda: str | None) -> Answer:
    """Say whether a CUDA release still supports a GPU; `last_cuda` is the last major that does.

    Source: CUDA Toolkit, Driver, and Architecture Matrix; CUDA 13.0 release notes.
    """
    compared = (("gpu", gpu), ("cuda", cuda), *((("last_cuda", last_cuda),) if last_cuda else ()))
    if last_cuda and numbers(cuda)[0] > numbers(last_cuda)[0]:
        return Answer(says="no", rule="gpu-dropped", compared=compared)
    return Answer(says="yes", rule="gpu-supported", compared=compared)


def driver(cuda: str, version: str, *, floor: str, speaks: str | None) -> Answer:
    """Say whether a driver runs what a CUDA release made, PTX aside (see `accepts_ptx`).

    `floor` is the first driver of the CUDA family, `speaks` the CUDA release of the driver itself.
    A driver of the same release or a later one is native; an older one of the same major release
    runs it by minor-version compatibility from the floor on.
    """
    compared: Numbers = (("driver", version), ("floor", floor))
    if numbers(version) < numbers(floor)[: len(numbers(version))]:
        return Answer(says="no", rule="driver-floor", compared=compared)
    if speaks is None:
        return Answer(says="yes", rule="driver-floor", compared=compared)
    compared = (*compared, ("cuda", cuda), ("speaks", speaks))
    if numbers(speaks) >= numbers(cuda)[:2]:
        return Answer(says="yes", rule="driver-native", compared=compared)
    if numbers(speaks)[0] == numbers(cuda)[0]:
        return Answer(says="yes", rule="driver-minor", compared=compared)
    return Answer(says="no", rule="driver-major", compared=compared)


def accepts_ptx(
    cuda: str, *, speaks: str | None, made: str | None = None, accepts: str | None = None
) -> Answer:
    """Say whether a driver compiles the PTX that a CUDA release wrote.

    `speaks` is the CUDA release of the driver; `made` and `accepts` are the PTX versions of the
    image's CUDA and of the driver, which decide where the driver is the older one.
    """
    if speaks is None:
        return Answer(says="unknown", rule="ptx-version", compared=(("cuda", cuda),))
    compared: Numbers = (("cuda", cuda), ("speaks", speaks))
    if numbers(speaks) >= numbers(cuda)[:2]:
        return Answer(says="yes", rule="ptx-version", compared=compared)
    if made is None or accepts is None:
        return Answer(says="unknown", rule="ptx-version", compared=compared)
    says: Says = "yes" if numbers(made) <= numbers(accepts) else "no"
    compared = (*compared, ("made", made), ("accepts", accepts))
    return Answer(says=says, rule="ptx-version", compared=compared)
