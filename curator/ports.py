"""What the farm asks of the outside world: four protocols, each with several implementations.

An implementation translates its library's errors into `curator.errors` and keeps these promises:

- "not found" is `None`, never an exception and never retried;
- every write is read back or answered with the digest that was written;
- a call that was interrupted can be made again and ends in the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from curator.errors import Diagnostic, InputError

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from curator.oci import Descriptor, Digest, Manifest, Platform, Reference
    from curator.recipe import Recipe
    from curator.smoke import ProbeRun


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """How to reach a docker engine: the client program, and what it needs to be told.

    `host` is a URL such as `unix:///run/docker.sock`, `context` one of docker's contexts (over ssh,
    say), `config` a client's configuration directory; None leaves each to the client's own
    defaults. `builder` names a buildx builder.

    Raises:
        InputError: both a host and a context.
    """

    docker: str
    kind: Literal["system", "embedded"]
    host: str | None = None
    config: str | None = None
    builder: str | None = None
    context: str | None = None

    def __post_init__(self) -> None:
        if self.host and self.context:
            message = f"an engine at {self.host} and in the context {self.context}: name one"
            raise InputError(Diagnostic(code="engine", message=message))

    @property
    def command(self) -> tuple[str, ...]:
        """The beginning of a command line that talks to this engine."""
        config = ("--config", self.config) if self.config else ()
        host = ("--host", self.host) if self.host else ()
        context = ("--context", self.context) if self.context else ()
        return (self.docker, *config, *host, *context)


class Engine(Protocol):
    """Builds images."""

    def platforms(self) -> tuple[Platform, ...]:
        """Return what this engine can build for, its own platform first."""
        ...

    def build(  # noqa: PLR0913 - one build has this many inputs; each is named at the call
        self,
        recipe: Recipe,
        *,
        base: Reference,
        layout: Path,
        log: Path,
        secrets: Mapping[str, Path],
        timeout_s: int,
        cancelled: threading.Event,
    ) -> Digest:
        """Build into a new OCI layout directory and return the digest of its image.

        Raises:
            BuildError: the build ran and failed; the message ends with the log's last lines.
            CancelledError: `cancelled` was set; nothing is left running.
            TemporaryError: the engine or the network failed; the same call may succeed.
        """
        ...


class Registry(Protocol):
    """Keeps images. A reference without a tag or digest names the repository."""

    def resolve(self, reference: Reference) -> Descriptor | None:
        """Return what a tag or digest points at now (one HEAD), or None."""
        ...

    def manifest(self, reference: Reference) -> Manifest:
        """Return a manifest whose bytes were checked against its digest."""
        ...

    def push(self, layout: Path, target: Reference) -> Digest:
        """Upload a layout's one image: what is missing, children by digest, then the tag, once."""
        ...

    def copy(self, source: Reference, target: Reference) -> Digest:
        """Make the image at `source`'s digest available in `target`'s repository, untagged."""
        ...

    def tag(self, source: Reference, tag: str) -> Digest:
        """Point a tag of the same repository at `source`'s digest by a PUT of the same bytes."""
        ...

    def put(
        self,
        repository: Reference,
        manifest: Manifest,
        blobs: Sequence[bytes] = (),
        tag: str | None = None,
    ) -> Digest:
        """Upload small blobs and the manifest that names them, by its digest or under a tag."""
        ...

    def tags(self, repository: Reference) -> tuple[str, ...]:
        """Return a repository's tags, sorted; none if there is no such repository."""
        ...

    def blob(self, repository: Reference, descriptor: Descriptor) -> bytes:
        """Return a small blob, checked against its digest."""
        ...

    def has(self, repository: Reference, descriptor: Descriptor) -> bool:
        """Say whether a repository has a blob (one HEAD)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A stored document with the tag that a conditional replace asks for."""

    data: bytes
    etag: str


class Store(Protocol):
    """Keeps index documents under relative POSIX paths."""

    def read(self, path: str) -> Blob | None:
        """Return the document, or None."""
        ...

    def add(self, path: str, data: bytes) -> None:
        """Create an immutable document durably; the same bytes again are fine.

        Raises:
            ConflictError: other bytes stand there.
        """
        ...

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        """Replace a mutable document if it is still the expected one; return the new etag.

        Raises:
            ConflictError: the document has another etag (None expects that there is none).
        """
        ...

    def list(self, prefix: str) -> tuple[str, ...]:
        """Return the paths that start with `prefix`, sorted."""
        ...

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Wait for a turn among this store's writers, for a while and where it can give one.

        It keeps writers from racing in vain; nothing may rest on having it.
        """
        ...


class Runner(Protocol):
    """Runs a program inside an image, somewhere."""

    def run(self, image: Reference, program: str, *, gpus: int, timeout_s: int) -> ProbeRun:
        """Run `python3 -c program` in the image at its digest, and leave nothing behind.

        Waiting for GPUs, fetching and unpacking are no part of `timeout_s`. Whatever keeps the
        program from starting, except what is raised, is the run's `failure`.

        Raises:
            HostError: this runner does not have as many GPUs, or lacks what it works with.
            IntegrityError: the image's bytes are not what their digests say.
        """
        ...

    def on(self, gpus: Collection[str]) -> Runner:
        """Return the same runner for these of its GPUs alone, by UUID."""
        ...
