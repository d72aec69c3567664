"""What a matrix consists of, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.lockfile import BaseLock, ImageLock, Lock
    from curator.oci import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuda:
    """A CUDA release: its distribution on the package index and the driver it needs."""

    version: str
    toolkit: str | None
    runtime: str | None
    driver_floor: str
    source: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What an image starts from: made from a distribution's archive, or pulled.

    `exclude_paths` are left out of packages, `keep_paths` stay in spite of that.
    """

    name: str
    kind: Literal["mmdebstrap", "image"]
    python: str
    suite: str | None
    include: tuple[str, ...]
    exclude_paths: tuple[str, ...]
    epoch: int
    reference: str | None
    keep_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination that can be built; `id` is its name everywhere.

    `package` is the distribution that the version is of, `module` what Python imports of it.
    """

    id: str
    framework: str
    version: str
    cuda: str
    python: str
    platform: Platform
    base: str
    recipe: Literal["wheels", "toolkit"]
    package: str
    module: str
    requirements: tuple[str, ...]
    constrain: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    sm_min: str | None
    file: str
    line: int

    @property
    def lock_path(self) -> str:
        """Where the cell's lock is in the farm's tree."""
        return f"matrix/locks/{self.framework}/{self.id}.txt"

    def to_json(self) -> dict[str, Any]:
        """Return the cell as `--json` shows it."""
        return {
            "id": self.id,
            "framework": self.framework,
            "version": self.version,
            "cuda": self.cuda,
            "python": self.python,
            "platform": str(self.platform),
            "base": self.base,
            "recipe": self.recipe,
            "package": self.package,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A combination of the axes that is no cell, the reason, and who says so."""

    id: str
    framework: str
    version: str
    cuda: str
    python: str
    platform: Platform
    because: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the rejection as `--json` shows it."""
        return {"id": self.id, "because": self.because, "source": self.source}


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmConfig:
    """`farm.yaml`: what holds for the whole farm. Sizes in bytes, times in seconds.

    `evidence_days` is how old a test may be before it counts no more.
    """

    registry: str | None
    store: str | None
    jobs: int
    build_timeout_s: int
    smoke_timeout_s: int
    registry_timeout_s: int
    alone_bytes: int
    evidence_days: int
    epoch: int
    demo: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Everything a farm's files say, checked against each other.

    Cells and rejected combinations are in natural order: framework, version, CUDA, Python,
    platform. `base_locks` is by (base, platform).
    """

    cells: tuple[Cell, ...]
    rejected: tuple[Rejected, ...]
    bases: Mapping[str, Base]
    cuda: Mapping[str, Cuda]
    farm: FarmConfig
    locks: Mapping[str, Lock]
    base_locks: Mapping[tuple[str, str], BaseLock | ImageLock]
