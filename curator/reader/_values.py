"""What passes between a reader, the place it reads and the place it remembers in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from curator.errors import IntegrityError
    from curator.oci import Digest

# How long a head is waited for where a verified copy of it is at hand.
PATIENCE_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A document and its ETag; without `data` it is what it was under the ETag that was sent."""

    data: bytes | None
    etag: str | None


class Origin(Protocol):
    """Where an index is read."""

    def get(
        self, path: str, etag: str | None = None, *, within_s: float | None = None
    ) -> Fetched | None:
        """Return a document, or None where there is none.

        With `within_s` the asker can do without: a place that is not there is not waited for, and
        any other not longer than that.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What a reader holds an index to once it has seen it.

    `registry` is where its images are: no signature is over that. `keys` maps the ids of the
    signing keys to PEM; `gen` is the highest generation ever seen, and `sha256` the hash of its
    document.
    """

    store: str
    registry: str
    keys: dict[str, str]
    threshold: int
    gen: int
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The last verified head, its ETag, when it was seen at its origin (Unix), and the config."""

    data: bytes
    etag: str | None
    seen_at: float
    config: bytes


class MovedError(Exception):
    """A document that the head named is gone or another one: the head may have moved.

    `error` is what it comes to if the head has not.
    """

    def __init__(self, error: IntegrityError) -> None:
        super().__init__(str(error))
        self.error = error
