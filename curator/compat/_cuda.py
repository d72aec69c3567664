"""Rules of NVIDIA's: which kernels a GPU loads, which driver runs what a CUDA release made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from curator.compat._answer import Answer, numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from curator.compat._answer import Numbers, Says

# The capabilities of Jetson boards and their like.
TEGRA: Final = frozenset({(3, 2), (5, 3), (6, 2), (7, 2), (8, 7)})

_MINORS_SINCE: Final = 11
_TARGET = re.compile(r"(\d{1,3})\.(\d)([af]?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A library that a framework needs, with code for fewer GPUs than the framework itself."""

    file: str
    cubin: tuple[str, ...]
    ptx: tuple[str, ...] = ()


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
    its own minor on. Machine code for Tegra (Jetson boards) is for its own capability alone, and
    Tegra loads no other. A target that cannot be read makes a no an unknown.

    Source: CUDA Programming Guide, "Binary Compatibility" (Tegra included), "PTX Compatibility",
    and "Feature Set Compiler Targets" for the suffixes.
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


def library(gpu: str, gap: Gap) -> Answer:
    """Say whether a GPU, for which a framework has kernels, has them in such a library, too.

    Source: conda-forge/tensorflow-feedstock#457: cuDNN 9.11 and later has no device code for GPUs
    before Turing, and what uses it there crashes.
    """
    found = kernel(gpu, cubin=gap.cubin, ptx=gap.ptx).says
    compared = (("gpu", gpu), ("file", gap.file))
    return Answer(says="yes" if found == "yes" else "unknown", rule="kernel-gap", compared=compared)


_Target = tuple[int, int, str]


def _target(text: str) -> _Target | None:
    match = _TARGET.fullmatch(text)
    return (int(match[1]), int(match[2]), match[3]) if match else None


def _closeness(target: _Target) -> tuple[int, int, int]:
    """Order targets by how closely they are made for a GPU: plain, family, its own."""
    return target[0], target[1], ("", "f", "a").index(target[2])


def _loads_cubin(target: _Target, gpu: tuple[int, ...]) -> bool:
    major, minor, suffix = target
    if suffix == "a" or (major, minor) in TEGRA or gpu in TEGRA:
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


def supported(
    gpu: str, cuda: str, *, first_cuda: str, last_cuda: str | None, built: str | None = None
) -> Answer:
    """Say whether a CUDA release supports a GPU: `first_cuda` is the first that knows it.

    `last_cuda` is the last major release that does. `built` is the release that wrote the PTX which
    the GPU needs, where it is another than the image's: it has to know the GPU too.

    On a GPU that is newer than the release nobody promises anything, whatever kernels an image
    ships for it: a framework that compiles kernels when they are used asks a compiler that does
    not know the GPU, and so do its libraries.

    Source: CUDA Toolkit, Driver, and Architecture Matrix; CUDA 13.0 release notes.
    """
    compared: Numbers = (("gpu", gpu), ("cuda", cuda))
    if last_cuda and numbers(cuda)[0] > numbers(last_cuda)[0]:
        compared = (*compared, ("last_cuda", last_cuda))
        return Answer(says="no", rule="gpu-dropped", compared=compared)
    oldest = min(cuda, built or cuda, key=lambda release: numbers(release)[:2])
    if numbers(oldest)[:2] < numbers(first_cuda):
        compared = (("gpu", gpu), ("cuda", oldest), ("first_cuda", first_cuda))
        return Answer(says="unknown", rule="gpu-newer", compared=compared)
    compared = (*compared, ("last_cuda", last_cuda)) if last_cuda else compared
    return Answer(says="yes", rule="gpu-supported", compared=compared)


def driver(cuda: str, version: str, *, floor: str, speaks: str | None) -> Answer:
    """Say whether a driver runs what a CUDA release made, PTX aside (see `accepts_ptx`).

    `floor` is the first driver of the CUDA family, `speaks` the CUDA release of the driver itself.
    A driver of the same release or a later one is native; an older one of the same major release
    runs it by minor-version compatibility from the floor on, which there is since CUDA 11.

    Source: CUDA Compatibility, "Minor Version Compatibility".
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
        says: Says = "yes" if numbers(cuda)[0] >= _MINORS_SINCE else "no"
        return Answer(says=says, rule="driver-minor", compared=compared)
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


def knows(branch: int, gpu: str, *, first: int | None, last: int | None) -> Answer:
    """Say whether a driver branch knows a GPU; `first` and `last` are the branches that do."""
    compared = (("branch", str(branch)), ("gpu", gpu))
    if first is not None and branch < first:
        needs = (("needs", f"driver >= {first}"), ("first", str(first)))
        return Answer(says="no", rule="gpu-driver", compared=(*compared, *needs))
    if last is not None and branch > last:
        needs = (("needs", f"branch {last} was the last"), ("last", str(last)))
        return Answer(says="no", rule="gpu-driver", compared=(*compared, *needs))
    return Answer(says="yes", rule="gpu-driver", compared=compared)


def introduced(product: str, version: str, *, first: str) -> Answer:
    """Say whether a driver knows a product; `first` is the first that is known to run it.

    Products come after the first driver of their capability, and no list tells when.
    """
    compared = (("product", product), ("driver", version), ("first", first))
    fine = numbers(version) >= numbers(first)[: len(numbers(version))]
    return Answer(says="yes" if fine else "unknown", rule="gpu-product", compared=compared)


def forward(
    package: str,
    branch: int,
    kinds: Iterable[str | None],
    *,
    takes: Collection[int] | None,
    without: bool,
) -> Answer:
    """Say whether a forward compatibility package works on a driver branch and kinds of GPU.

    `takes` are the branches it is made for, None where that is not known; `without` says whether
    the driver would run the image if it had no such package, which is loaded first all the same.
    It is for data-centre GPUs; some workstation GPUs are certified, which no name tells.

    Source: CUDA Compatibility, "Forward Compatibility": else CUDA answers with error 803 or 804.
    """
    found = set(kinds)
    kind = next((kind for kind in ("geforce", "titan", "embedded") if kind in found), None)
    told = kind or ("data-centre" if found == {"datacenter"} else "these")
    compared = (("forward", package), ("branch", str(branch)), ("kind", told))
    is_taken = takes is not None and branch in takes
    if kind or not (is_taken or takes is None or without):
        return Answer(says="no", rule="driver-forward", compared=compared)
    says: Says = "yes" if is_taken and found == {"datacenter"} else "unknown"
    return Answer(says=says, rule="driver-forward", compared=compared)


def platform(platforms: Collection[str], host: str) -> Answer:
    """Say whether an image is built for a host's platform, such as `linux/arm64`."""
    compared = (("image", ", ".join(platforms)), ("host", host))
    return Answer(says="yes" if host in platforms else "no", rule="platform", compared=compared)


def threads(glibc: str, docker: str) -> Answer:
    """Say whether a Docker Engine lets a C library start threads.

    glibc 2.34 and later call clone3, which the seccomp profile of an engine before 20.10.10
    answers with EPERM instead of ENOSYS.

    Source: Docker Engine release notes, 20.10.10.
    """
    least = "20.10.10"
    compared = (("glibc", glibc), ("docker", docker), ("least", least))
    fine = numbers(glibc) < (2, 34) or numbers(docker) >= numbers(least)
    return Answer(says="yes" if fine else "no", rule="glibc-clone3", compared=compared)
