"""The index again, from evidence and registry alone.

Every publish leaves a record among the evidence: the entries as it was about to commit them, on
which generation, and that generation's own record. A publisher that died before its commit, or
was overtaken, leaves one that never counted.

- A record that another one names as its parent was committed: the chain held it when the other
  one was computed. Only those that none could name are in doubt (the newest, and those before a gap
  or before records of a curator that named none); of those on one generation at most one was.
- Between them the chain decides, as far as the source still has it; else the registry. Its tags
  follow the index and never lead it: a tag that stands where this record alone puts it proves it.
- Where the chain ends, it may have lost its end: what a tag proves was committed all the same.
- A record in doubt that moved no tag, such as that of a test which changed nothing, looks the same
  whether it was committed or not. It is taken if it has no rival, and no chain ends before it.
- A record in doubt whose tags are not there was not committed, or its publisher died between commit
  and tags: it is left out, and said to be. So is whatever else cannot be made again.
- What a signed index is made into without its keys is not signed by them: that is said as well.
- Records stay behind: the new store begins a history of its own.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from curator.errors import IntegrityError, RefusedError
from curator.index import (
    HEAD_PATH,
    MAX_DOCUMENT_BYTES,
    Entry,
    Index,
    LaterEntry,
    Record,
    evidence_path,
    following,
    group_of,
    parse,
    parse_head,
    read_config,
    read_index,
    read_tip,
)
from curator.oci import hex_of, sha256
from curator.policy import TAGGED, floating_tags
from curator.publish._commit import add_named, amend
from curator.publish._finish import finish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from curator.oci import Digest
    from curator.ports import Store
    from curator.publish._values import Target

EVIDENCE: Final = "v1/evidence/"
# The documents of one commit tell little more than its entries do.
BATCH_BYTES: Final = MAX_DOCUMENT_BYTES // 2

State = dict[str, Entry | LaterEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """The index that was made; `left_out` says what was not taken, and why."""

    index: Index
    left_out: tuple[str, ...]


def rebuild(source: Store, target: Target) -> Rebuilt:
    """Make the index of `source`'s evidence in the target's store, which must be new.

    Raises:
        RefusedError: the target's store has an index already.
        IntegrityError: a piece of evidence is damaged, or is of two histories.
    """
    if read_tip(target.store) is not None:
        raise RefusedError("there is an index already: name a new place, and swap it in yourself")
    evidence = dict(_evidence(source))
    records = {sha256(data): record for data in evidence.values() for record in _told(data)}
    state, left_out = _state(records, source, target)
    kept = []
    for name, entry in sorted(state.items()):
        why = _why_not(entry, target)
        if isinstance(entry, LaterEntry) or why:
            left_out.append(f"{name}: {why}")
        else:
            kept.append(entry)
    for path, data in evidence.items():
        if sha256(data) not in records:
            add_named(target.store, path, data)
    left_out += _unsigned(source, target)
    return Rebuilt(index=_commit(kept, target), left_out=tuple(left_out))


def _evidence(source: Store) -> Iterator[tuple[str, bytes]]:
    for path in source.list(EVIDENCE):
        blob = source.read(path)
        if blob is None or evidence_path(sha256(blob.data)) != path:
            raise IntegrityError(f"{path} is not what its name says")
        yield path, blob.data


def _told(data: bytes) -> list[Record]:
    """Return the record that a piece of evidence is; other evidence is none."""
    if b'"kind":"publish"' not in data or not _is_record(data):
        return []
    return [parse(Record, data, "a record")]


def _is_record(data: bytes) -> bool:
    """Say whether a document calls itself a record; what stands deeper in it may say anything."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return True
    return isinstance(value, dict) and value.get("kind") == "publish"


def _state(
    records: Mapping[Digest, Record], source: Store, target: Target
) -> tuple[State, list[str]]:
    """Return every entry as the last committed record tells it, and what is missing of that."""
    end, named = _chain(source)
    by_base: dict[int, dict[Digest, Record]] = {}
    for name, record in records.items():
        by_base.setdefault(record.base, {})[name] = record
        if record.parent:
            named.setdefault(record.base - 1, set()).add(record.parent)
    committed = {name for names in named.values() for name in names}
    left_out = [f"record {name}: is missing" for name in sorted(committed - records.keys())]
    left_out += _gaps(by_base)
    state: State = {}
    for base, rivals in sorted(by_base.items()):
        found = _only(record for name, record in rivals.items() if name in committed)
        # Where another one is named, which is missing, none of these was committed.
        if found is None and base not in named:
            found, doubts = _likely(rivals, state, target, may_be_silent=base != end)
            left_out += doubts
        state |= {entry.id: entry for entry in (found.entries if found else ())}
    return state, left_out


def _gaps(by_base: Iterable[int]) -> Iterator[str]:
    """Say which records are missing that no other one names."""
    for before, after in pairwise((-1, *sorted(by_base))):
        # The one right before is named by its child.
        if after - before > 2:  # noqa: PLR2004
            yield f"the records of generations {before + 2} to {after - 1}: are missing"


def _chain(source: Store) -> tuple[int | None, dict[int, set[Digest]]]:
    """Return where a source's chain ends, and the records that it names, by their bases.

    One that is damaged, or not there, ends nowhere; what stands before the damage is true.
    """
    end = None
    named: dict[int, set[Digest]] = {}
    try:
        for tip in following(source, None):
            end = tip.generation.number
            if tip.generation.record:
                named[end - 1] = {tip.generation.record}
        read_tip(source)
    except IntegrityError:
        end = None
    return end, named


def _only(committed: Iterable[Record]) -> Record | None:
    """Return the one record that was committed on a generation, if it is known."""
    found = list(committed)
    if len(found) > 1:
        raise IntegrityError(
            f"the evidence tells two histories: publishes {found[0].publish} and "
            f"{found[1].publish} were both committed after generation {found[0].base}"
        )
    return found[0] if found else None


def _likely(
    rivals: Mapping[Digest, Record], state: State, target: Target, *, may_be_silent: bool
) -> tuple[Record | None, list[str]]:
    """Return the record that was committed, as far as the registry shows which of these it was.

    With it, what is left out because nothing shows it. `may_be_silent`: one without rivals is taken
    where no tag could show it, because no chain says that it ends here.
    """
    seen = {name: _is_seen(record, state, target) for name, record in rivals.items()}
    proven = sorted(name for name, is_seen in seen.items() if is_seen)
    silent = [name for name, is_seen in seen.items() if is_seen is None]
    taken = proven[0] if proven else None
    if not proven and may_be_silent and len(silent) == 1:
        taken = silent[0]
    return rivals[taken] if taken else None, [
        f"{entry.id} as of {rivals[name].at}: no tag shows that this was committed"
        for name in proven or sorted(rivals)
        for entry in rivals[name].entries
        if name != taken
    ]


def _is_seen(record: Record, state: State, target: Target) -> bool | None:
    """Say whether a tag proves a record; None where it moved none, so that no tag could."""
    before = _names(state)
    after = _names({**state, **{entry.id: entry for entry in record.entries}})
    moved = {name: digest for name, digest in after.items() if before.get(name) != digest}
    if not moved:
        return None
    for name, digest in moved.items():
        repository, _, tag = name.rpartition(":")
        found = target.registry.resolve(target.place.repository(repository).with_tag(tag))
        if found is not None and found.digest == digest:
            return True
    return False


def _names(state: State) -> dict[str, Digest]:
    """Return every tag of a state that this version can read: `repository:tag` -> digest."""
    known = [entry for entry in state.values() if isinstance(entry, Entry)]
    immutable = {
        f"{entry.repository}:{tag}": entry.digest
        for entry in known
        for tag in entry.tags
        if entry.status.state in TAGGED
    }
    return {**immutable, **floating_tags(known)}


def _why_not(entry: Entry | LaterEntry, target: Target) -> str:
    """Say why an entry is no part of the index; nothing, if it is."""
    if isinstance(entry, LaterEntry):
        return "was written by a newer curator: rebuild with that one"
    if entry.status.state not in TAGGED or not entry.tags:
        return ""
    where = target.place.repository(entry.repository).with_tag(entry.tags[0])
    found = target.registry.resolve(where)
    if found is not None:
        return "" if found.digest == entry.digest else f"{where} names {found.digest}"
    # A name that is lost is given again; an image is not.
    image = target.registry.resolve(where.with_digest(entry.digest))
    return "" if image else f"{where} is not in the registry"


def _unsigned(source: Store, target: Target) -> Iterator[str]:
    """Say whether the source was signed by keys that are not here to sign what is made of it."""
    keys, threshold = _signers(source)
    own = {key.keyid for key in target.signer.public} if target.signer else set()
    if len(keys & own) < threshold:
        yield (
            f"the signature: {threshold} of {len(keys)} keys have to sign, {len(keys & own)} of "
            "them are here: name them in CURATOR_SIGNING_KEY, or readers will not know this index"
        )


def _signers(source: Store) -> tuple[set[str], int]:
    """Return the ids of the keys that a source is signed with, and how many of them have to sign.

    Its configuration says so, and where that is lost, its head.
    """
    with suppress(IntegrityError):
        if (config := read_config(source)) is not None:
            return {key.keyid for key in config.keys}, config.threshold if config.keys else 0
    with suppress(IntegrityError):
        if (head := source.read(HEAD_PATH)) is not None:
            signed = {signature.keyid for signature in parse_head(head.data).signatures}
            return signed, len(signed)
    return set(), 0


def _commit(entries: list[Entry], target: Target) -> Index:
    for number, batch in enumerate(_batches(entries), 1):
        names = {group_of(entry.stack.framework, entry.stack.version) for entry in batch}
        key = hex_of(sha256(f"rebuild {[entry.id for entry in batch]}".encode()))
        before = read_index(target.store, names)
        landed = amend(before, names, target, key, partial(Index.merge, entries=batch))
        if landed.made != number:
            raise RefusedError("somebody else published there at the same time: look at it first")
    finish(target)
    return read_index(target.store)


def _batches(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Yield the entries in parts that one commit can hold."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        length = len(entry.data)
        if batch and size + length > BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(entry)
        size += length
    if batch:
        yield tuple(batch)
