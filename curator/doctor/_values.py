"""What a look at a machine is about, and what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from curator import provision
from curator.errors import CuratorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.provision import Status

State = Literal["ok", "warn", "fail", "skip"]

# The package is in NVIDIA's own repository.
TOOLKIT = (
    "add NVIDIA's repository as docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/"
    "install-guide.html says; then sudo apt-get install -y nvidia-container-toolkit && "
    "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check says: `fix` is what to type or do about it, empty where nothing is wrong."""

    name: str
    state: State
    text: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding for machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is looked at; `registry` is `host[:port][/prefix]`, and None where none is configured.

    `root` is below what this machine's own directories (`/dev`, `/sys`, `/etc`) are.
    """

    environ: Mapping[str, str]
    cache: Path
    registry: str | None = None
    store: str | None = None
    root: Path = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """An engine that answers: how to call its client, and what it says of itself."""

    command: tuple[str, ...]
    version: str
    info: Mapping[str, Any] = field(default_factory=dict)
    is_here: bool = True


class Embedded:
    """The private engine and registry of a cache, asked for once, when somebody wants to know."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    @cached_property
    def status(self) -> Status | None:
        """What there is; None where nothing can be said of it."""
        try:
            return provision.status(self._cache)
        except CuratorError:
            return None
