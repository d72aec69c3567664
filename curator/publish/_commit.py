"""The commit: documents named by their hash, then one generation that nobody else created.

- What an entry becomes is computed on the state it is added to, again after every lost race.
- An ambiguous answer of the store is decided by reading back, never by guessing.
- The first publish of all gives the store its identity.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from curator.errors import ConflictError, CuratorError, IntegrityError, TemporaryError
from curator.index import (
    CONFIG_PATH,
    Config,
    documents,
    evidence_path,
    following,
    group_of,
    read_config,
    read_index,
)
from curator.oci import canonical_json, hex_of, sha256
from curator.policy import floating_tags, reconciled
from curator.publish._values import Failure, TakenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from curator.index import Document, Entry, Index
    from curator.ports import Store
    from curator.publish._values import Change, Ports

COMMIT_TIMEOUT_S: Final = 120.0
LONGEST_PAUSE_S: Final = 0.25


def groups(changes: Sequence[Change]) -> frozenset[str]:
    """Return the parts of the index that these changes, and the tags they touch, depend on."""
    stacks = [change.entry.stack for change in changes]
    return frozenset(group_of(stack.framework, stack.version) for stack in stacks)


def settled(change: Change, index: Index, now: str) -> Entry | None:
    """Return the entry as this state of the index takes it; None if it tells nothing new.

    Raises:
        TakenError: the immutable tag names another image.
        IntegrityError: a test names a report that is neither given nor known.
    """
    new = change.entry
    old = index.find(cell=new.cell, recipe=new.recipe)
    if old is not None and old.tags and old.digest != new.digest:
        name = f"{old.repository}:{old.tags[0]}"
        raise TakenError(name, have=old.digest, want=new.digest)
    _require_evidence(change, old)
    entry = reconciled(old, new)
    if entry == old:
        return None
    entry = change.complete(entry)
    status = entry.status
    if status.at is None:
        status = status.model_copy(update={"at": now})
    published = entry.published if _keeps_its_age(entry, old, index) else now
    return entry.model_copy(update={"published": published, "status": status})


def _keeps_its_age(entry: Entry, old: Entry | None, index: Index) -> bool:
    """Say whether an entry stays as old as it was: its cell's newest, in the same channel."""
    newest = index.find(cell=entry.cell)
    return (
        old is not None
        and newest is not None
        and newest.id == entry.id
        and (old.channel, old.digest) == (entry.channel, entry.digest)
    )


def _require_evidence(change: Change, old: Entry | None) -> None:
    known = {sha256(data) for data in change.evidence}
    if old is not None:
        known |= {test.evidence for test in old.tests}
    for test in change.entry.tests:
        if test.evidence not in known:
            raise IntegrityError(f"{change.entry.id}: no report has the digest {test.evidence}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """What the index says now, and in which generation this call said it; None if it had before."""

    index: Index
    made: int | None


def commit(
    changes: Sequence[Change], index: Index, ports: Ports, failures: list[Failure]
) -> Landed:
    """Create the next generation, on top of whoever was faster."""
    store_id = _store_id(ports)
    for change in changes:
        for data in change.evidence:
            _add_named(ports.store, evidence_path(sha256(data)), data)
    publish_id = _publish_id(changes)
    for _ in _attempts():
        entries = _entries(changes, index, ports.now, failures)
        if not entries:
            return Landed(index=index, made=None)
        after = _with_tags(index, index.merge(entries))
        written = documents(index, after, store=store_id, publish=publish_id, now=ports.now)
        if _is_created(written, ports.store):
            return Landed(index=after, made=index.number + 1)
        later = tuple(following(ports.store, index.tip))
        index = read_index(ports.store, groups(changes))
        for tip in later:
            # The answer got lost, or another process published the very same change.
            if publish_id in tip.generation.publishes:
                return Landed(index=index, made=tip.generation.number)
    raise TemporaryError(f"others committed first for {COMMIT_TIMEOUT_S:g} s: publish again")


def _entries(
    changes: Sequence[Change], index: Index, now: str, failures: list[Failure]
) -> list[Entry]:
    """Return what this state of the index takes; what another publisher made impossible fails."""
    refused = {failure.entry.id for failure in failures}
    found = []
    for change in changes:
        if change.entry.id in refused:
            continue
        try:
            entry = settled(change, index, now)
        except CuratorError as error:
            failures.append(Failure(entry=change.entry, error=error))
            continue
        if entry is not None:
            found.append(entry)
    return found


def _with_tags(before: Index, after: Index) -> Index:
    """Return the state with the moving tags of the groups that changed."""
    tags = dict(before.tags)
    changed = {key.rpartition("/")[0] for key in after.shards}
    for group in sorted(changed):
        for name in floating_tags(before.group(group)):
            tags.pop(name, None)
        tags |= floating_tags(after.group(group))
    return after.merge((), tags=tags)


def _is_created(written: Sequence[Document], store: Store) -> bool:
    """Write the shards, then try to create the generation; False if the number was taken."""
    *shards, generation = written
    for document in shards:
        _add_named(store, document.path, document.data)
    try:
        store.add(generation.path, generation.data)
    except ConflictError:
        return False
    except TemporaryError:
        # It may have landed all the same: what stands there decides.
        found = store.read(generation.path)
        if found is None:
            raise
        return found.data == generation.data
    return True


def _add_named(store: Store, path: str, data: bytes) -> None:
    """Add a document that is named by its hash: other bytes under that name are damage."""
    try:
        store.add(path, data)
    except ConflictError as error:
        raise IntegrityError(f"{path} holds other bytes than its name says") from error


def _publish_id(changes: Sequence[Change]) -> str:
    """Return the hash of what is published, whoever publishes it and when."""
    content = [
        {
            "entry": {**change.entry.to_json(), "published": None},
            "evidence": sorted(sha256(data) for data in change.evidence),
        }
        for change in sorted(changes, key=lambda change: change.entry.id)
    ]
    return hex_of(sha256(canonical_json(content)))


def _store_id(ports: Ports) -> str:
    """Return the store's identity, giving it one at the first publish of all."""
    config = Config(store=str(uuid.uuid4()), registry=str(ports.place))
    if (found := read_config(ports.store)) is not None:
        return found.store
    try:
        ports.store.add(CONFIG_PATH, config.data)
    except ConflictError:
        return _store_id(ports)
    return config.store


def _attempts() -> Iterator[None]:
    """Yield once, then again after growing random pauses until the time is up."""
    deadline = time.monotonic() + COMMIT_TIMEOUT_S
    longest = 0.002
    while time.monotonic() < deadline:
        yield
        time.sleep(random.uniform(0, longest))  # noqa: S311 - spreads writers, hides nothing
        longest = min(longest * 2, LONGEST_PAUSE_S)
