"""Rules of what runs where, each with its source. Pure: versions in, answers out.

>>> require_cuda("12.9")
'cuda>=12.0'
"""

from __future__ import annotations


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
