"""What is published, and the answers to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.errors import CuratorError
    from curator.index import Entry
    from curator.oci import Digest, Reference
    from curator.ports import Registry, Store
    from curator.settings import Place


class TakenError(RefusedError):
    """An immutable tag already names another image."""

    def __init__(self, name: str, *, have: Digest, want: Digest) -> None:
        self.have = have
        self.want = want
        super().__init__(f"{name} is {have} for ever and cannot become {want}: change the recipe")


def _as_it_is(entry: Entry) -> Entry:
    return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One image to publish: its entry as the gates left it, and the reports its tests name.

    `source` is where the tested image waits, at its digest; an entry that no gate let through
    is recorded without a copy and needs none. `complete` adds what follows from all tests of the
    image, those that the index had before among them.
    """

    entry: Entry
    source: Reference | None = None
    evidence: tuple[bytes, ...] = ()
    complete: Callable[[Entry], Entry] = _as_it_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that was left out, and why."""

    entry: Entry
    error: CuratorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Generation `gen` holds the change.

    `entries` are the published ones as the index holds them now, in the order of the changes.
    `unfinished` is what kept tags or derived files behind; `recover` or the next publish
    brings them up.
    """

    gen: int
    entries: tuple[Entry, ...] = ()
    failures: tuple[Failure, ...] = ()
    unfinished: CuratorError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyCommitted:
    """The index held all of this before; `gen` is the newest generation, which still does."""

    gen: int
    entries: tuple[Entry, ...] = ()
    failures: tuple[Failure, ...] = ()
    unfinished: CuratorError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Nothing was published; where a tag was taken, `have` and `want` are the two digests."""

    reason: str
    have: Digest | None = None
    want: Digest | None = None
    failures: tuple[Failure, ...] = ()


Answer = Committed | AlreadyCommitted | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where a publish happens, and when it is said to have happened."""

    store: Store
    registry: Registry
    place: Place
    now: str
