"""Which parts of an index a question is about, and which entry a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from curator.compat import begins
from curator.index import instant, minor_of
from curator.resolve import OFFERED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from curator.index import Entry, State
    from curator.oci import Digest

# Of several entries with one digest: what is offered, and before all others what is refused.
_STANDING: Final[Mapping[State, int]] = {
    "active": 3,
    "candidate": 3,
    "deprecated": 2,
    "quarantined": 1,
}


def matches_minor(minor: str, wanted: str | None) -> bool:
    """Say whether versions of a minor can be wanted: 14.2 for `14`, `14.2`, `14.2.0` and ranges."""
    if wanted is None or not wanted[:1].isdigit():
        return True
    return begins(minor, wanted) or minor_of(wanted) == minor


def wanted_frameworks(name: str, known: Collection[str]) -> Collection[str]:
    """Return the frameworks that a tag, id or cell can be of; all of them for a digest."""
    if name.startswith("sha256:"):
        return known
    repository, colon, _ = name.rpartition(":")
    if colon:
        return {repository.rpartition("/")[2]}
    return {framework for framework in known if name.startswith(f"{framework}-")}


def answers(entry: Entry, name: str) -> bool:
    """Say whether an entry answers to a name: to id and digest always, else if it is offered."""
    if name in {entry.id, entry.digest}:
        return True
    tags = {f"{entry.repository}:{tag}" for tag in entry.tags}
    return entry.status.state in OFFERED and name in {entry.cell, *tags}


def holds(entry: Entry, name: str, digest: Digest) -> bool:
    """Say whether an entry is the one on which a moving tag (`repository:tag`) stands."""
    place = entry.repository, entry.digest
    return place == (name.rpartition(":")[0], digest) and entry.status.state in OFFERED


def meant(entries: Iterable[Entry]) -> Entry | None:
    """Return the entry that is meant where several answer: the newest of the best state."""
    return max(entries, key=_order, default=None)


def _order(entry: Entry) -> tuple[int, str]:
    return _STANDING.get(entry.status.state, 0), instant(entry.published)
