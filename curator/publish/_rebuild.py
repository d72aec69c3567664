"""The index again, from evidence and registry alone.

Every publish leaves a record among the evidence: the entries as it was about to commit them, and
on which generation. Of one entry the record with the highest base is the last that was committed.
A publisher that died between its record and its commit leaves one that never was: what the
registry does not have under its immutable tag is left out, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from curator.errors import IntegrityError, RefusedError
from curator.index import Entry, Index, Record, commit_documents, evidence_path, parse, read_tip
from curator.oci import hex_of, sha256
from curator.policy import TAGGED
from curator.publish._commit import add_named, is_created, pointed, store_id
from curator.publish._finish import finish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.ports import Store
    from curator.publish._values import Target

EVIDENCE: Final = "v1/evidence/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """The index that was made; `left_out` says which entries were not taken, and why."""

    index: Index
    left_out: tuple[str, ...]


def rebuild(source: Store, target: Target) -> Rebuilt:
    """Make the index of `source`'s evidence in the target's store, which must be new.

    Raises:
        RefusedError: the target's store has an index already.
        IntegrityError: a piece of evidence is damaged.
    """
    if read_tip(target.store) is not None:
        raise RefusedError("there is an index already: name a new place, and swap it in yourself")
    evidence = dict(_evidence(source))
    found: dict[str, tuple[int, Entry]] = {}
    for data in evidence.values():
        for base, entry in _told(data):
            if entry.id not in found or base >= found[entry.id][0]:
                found[entry.id] = (base, entry)
    kept, left_out = [], []
    for _, entry in sorted(found.values(), key=lambda item: item[1].id):
        why = _why_not(entry, target)
        if why:
            left_out.append(f"{entry.id}: {why}")
        else:
            kept.append(entry)
    for path, data in evidence.items():
        add_named(target.store, path, data)
    return Rebuilt(index=_commit(kept, target), left_out=tuple(left_out))


def _evidence(source: Store) -> Iterable[tuple[str, bytes]]:
    for path in source.list(EVIDENCE):
        blob = source.read(path)
        if blob is None or evidence_path(sha256(blob.data)) != path:
            raise IntegrityError(f"{path} is not what its name says")
        yield path, blob.data


def _told(data: bytes) -> list[tuple[int, Entry]]:
    """Return the entries of a record with its base; other evidence tells none."""
    if b'"kind":"publish"' not in data:
        return []
    record = parse(Record, data, "a record")
    return [(record.base, entry) for entry in record.entries if isinstance(entry, Entry)]


def _why_not(entry: Entry, target: Target) -> str:
    """Say why an entry is no part of the index; nothing, if it is."""
    if entry.status.state not in TAGGED:
        return ""
    where = target.place.repository(entry.repository).with_tag(entry.tags[0])
    found = target.registry.resolve(where)
    if found is None:
        return f"{where} is not in the registry"
    return "" if found.digest == entry.digest else f"{where} names {found.digest}"


def _commit(entries: list[Entry], target: Target) -> Index:
    before = Index()
    after = pointed(before, before.merge(entries))
    key = hex_of(sha256(f"rebuild {[entry.id for entry in entries]}".encode()))
    if entries:
        made = commit_documents(before, after, store=store_id(target), publish=key, now=target.now)
        if not is_created(made, target.store):
            raise RefusedError("somebody else published there at the same time: look at it first")
        finish(target)
    return after
