"""What a run works with, and what it says of each cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from curator.errors import CuratorError
    from curator.lockfile import BaseLock
    from curator.matrix import Base
    from curator.oci import Digest, Platform
    from curator.ports import Engine, Registry, Runner, Store
    from curator.settings import Place
    from curator.sign import Signer
    from curator.smoke import HostFacts


class Outcome(StrEnum):
    """How a cell's run ended."""

    PUBLISHED = "published"
    REFUSED = "refused"  # tested, and no gate let it through
    FAILED = "failed"
    DEFERRED = "deferred"  # nothing wrong with the cell: run again
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A step of a cell begins; `detail` is for people."""

    cell: str
    stage: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What became of one cell; times in milliseconds, sizes in bytes.

    `generation` holds what was published, and `publish` is the id of that change in it; None if
    an earlier one held it already.
    """

    cell: str
    outcome: Outcome
    cause: str = ""
    log: Path | None = None
    reference: str | None = None
    tags: tuple[str, ...] = ()
    channel: str | None = None
    built: bool = False
    size_bytes: int = 0
    generation: int | None = None
    publish: str | None = None
    stages_ms: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result as `--json` shows it."""
        return {
            "id": self.cell,
            "outcome": self.outcome.value,
            "cause": self.cause,
            "log": str(self.log) if self.log else None,
            "reference": self.reference,
            "tags": list(self.tags),
            "channel": self.channel,
            "built": self.built,
            "size": self.size_bytes,
            "generation": self.generation,
            "publish": self.publish,
            "stages_ms": dict(self.stages_ms),
        }


def failed(cell: str, error: CuratorError) -> CellResult:
    """Return what became of a cell that ran into an error."""
    outcome = Outcome.DEFERRED if error.retryable else Outcome.FAILED
    return CellResult(cell=cell, outcome=outcome, cause=str(error))


class Destination(Protocol):
    """Where images and the index are published; a run's ports are one."""

    @property
    def registry(self) -> Registry:
        """Keeps the images."""
        ...

    @property
    def store(self) -> Store:
        """Keeps the index."""
        ...

    @property
    def place(self) -> Place:
        """Which registry, and the farm's prefix there."""
        ...

    @property
    def now(self) -> Callable[[], str]:
        """Tell the time as documents hold it."""
        ...

    @property
    def expect(self) -> Mapping[str, Digest | None]:
        """Say where moving tags have to be before a publish: at a digest, or absent (None)."""
        ...

    @property
    def signer(self) -> Signer | None:
        """Signs images and the index, if they are signed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside world of one run, and where on this machine it may write."""

    engine: Engine
    registry: Registry
    runner: Runner
    store: Store
    place: Place
    host: HostFacts
    secrets: Mapping[str, Path]
    make_base: Callable[[Base, Platform, Path], BaseLock]
    now: Callable[[], str]
    signer: Signer | None = None
    expect: Mapping[str, Digest | None] = field(default_factory=dict)
    work: Path
    logs: Path
