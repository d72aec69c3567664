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
    from curator.sign import Signer


class TakenError(RefusedError):
    """An immutable tag already names another image."""

    def __init__(self, name: str, *, have: Digest, want: Digest) -> None:
        self.have = have
        self.want = want
        super().__init__(f"{name} is {have} for ever and cannot become {want}: change the recipe")


class ExpectationError(RefusedError):
    """A moving tag is not where the publisher expected it."""

    def __init__(self, name: str, *, have: Digest | None, want: Digest | None) -> None:
        self.have = have
        self.want = want
        super().__init__(
            f"{name} was expected {f'at {want}' if want else 'to be absent'}, it is "
            f"{f'at {have}' if have else 'absent'}: look at it, then publish again"
        )


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
    brings them up. `publish` is the change's id, which stands in the generation.
    """

    gen: int
    publish: str = ""
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
    """Nothing was published.

    Where a tag was taken, or is not where it was expected, `have` and `want` are its digests.
    """

    reason: str
    have: Digest | None = None
    want: Digest | None = None
    failures: tuple[Failure, ...] = ()


Answer = Committed | AlreadyCommitted | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a publish happens, when it is said to have happened, and who signs for it.

    `now` is RFC 3339 UTC. A store that has keys takes nothing without a signer that has them.
    """

    store: Store
    registry: Registry
    place: Place
    now: str
    signer: Signer | None = None
