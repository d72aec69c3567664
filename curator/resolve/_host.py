"""What the facts tell of a host's driver branch, and of the brands of its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from curator.compat import numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.facts import Facts
    from curator.resolve._values import Gpu

_BRANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "geforce": ("geforce", "geforcertx"),
    "titan": ("titan", "titanrtx"),
    "workstation": ("nvidia", "nvidiartx", "quadro", "quadrortx"),
    "datacenter": ("nvidia", "tesla"),
}
_TURING: Final = (7, 5)
_RENAMED: Final = 470


def speaks_of_branch(branch: int | None, facts: Facts) -> tuple[str | None, bool]:
    """Return the CUDA release that a branch speaks, and whether it is that or a later one.

    Of a branch without facts it is that of the nearest branch before.
    """
    if branch is None:
        return None, False
    known = facts.branches.get(nearest_branch(branch, facts))
    return (known.cuda, known.number == branch) if known else (None, False)


def nearest_branch(branch: int, facts: Facts) -> int:
    """Return the branch with facts that a driver is of: numbers on Windows run past the branch's.

    A driver 573 there is of branch 570. One that is older than all facts is of its own.
    """
    if branch in facts.branches:
        return branch
    return max((number for number in facts.branches if number < branch), default=branch)


def brands_of(gpu: Gpu, branch: int | None) -> tuple[str, ...]:
    """Return the brands that a GPU may report.

    Data-centre GPUs up to Volta are Teslas; from Turing on, newer drivers call them NVIDIA.

    Source: nvidia-container-toolkit#152 (T4 and A100 with 515), nvidia-docker#835 (V100).
    """
    if gpu.kind == "datacenter" and gpu.sm:
        if numbers(gpu.sm) < _TURING:
            return ("tesla",)
        if branch is not None and branch >= _RENAMED:
            return ("nvidia",)
    return _BRANDS.get(gpu.kind or "", ())
