"""The commit: documents named by their hash, then one generation that nobody else created.

- What an entry becomes is computed on the state it is added to, again after every lost race.
- Which build of a cell is the newest is decided by the order of the commits, and by no clock.
- An ambiguous answer of the store is decided by reading back, never by guessing.
- The first publish of all gives the store its identity.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from curator.errors import (
    ConflictError,
    CuratorError,
    Diagnostic,
    InputError,
    IntegrityError,
    TemporaryError,
)
from curator.index import (
    CONFIG_PATH,
    Config,
    commit_documents,
    evidence_path,
    following,
    group_of,
    group_of_shard,
    instant,
    parse,
    read_groups,
)
from curator.oci import canonical_json, hex_of, sha256
from curator.policy import floating_tags, reconciled
from curator.publish._head import own_config, require_keys, sign_first
from curator.publish._values import ExpectationError, Failure, TakenError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from curator.index import Commit, Entry, Index, Tip
    from curator.oci import Digest
    from curator.ports import Store
    from curator.publish._bring import Ready
    from curator.publish._values import Change, Target
    from curator.settings import Place

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
        RefusedError: a newer curator wrote what the index holds of this image.
    """
    new = change.entry
    index.require_known(new)
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
    newest = index.find(cell=entry.cell)
    published = entry.published if _keeps_its_age(entry, old, newest) else _after(newest, now)
    return entry.model_copy(update={"published": published, "status": status})


def _keeps_its_age(entry: Entry, old: Entry | None, newest: Entry | None) -> bool:
    """Say whether an entry stays as old as it was: the same image in the same channel.

    One that is tested again becomes its cell's newest; one that is decided on does not.
    """
    if old is None or (old.channel, old.digest) != (entry.channel, entry.digest):
        return False
    return old.tests == entry.tests or (newest is not None and newest.id == entry.id)


def _after(newest: Entry | None, now: str) -> str:
    """Return when an entry is published: after its cell's newest, whatever the clocks say."""
    last = newest.published if newest else None
    if last is None or instant(last) < instant(now):
        return now
    try:
        later = datetime.fromisoformat(last) + timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return now  # no day of any calendar
    return later.isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_published(change: Change, index: Index, place: Place) -> Change:
    """Return a rebuild that gave the same image as what is published, under the published digest.

    Each build records when it ran, so its outer digest is new; what runs is the platform's image.
    """
    entry = change.entry
    old = index.find(cell=entry.cell, recipe=entry.recipe)
    if old is None or not old.tags or old.platform_digest != entry.platform_digest:
        return change
    if old.digest == entry.digest:
        return change
    source = place.repository(old.repository).with_digest(old.digest)
    return replace(change, entry=entry.model_copy(update={"digest": old.digest}), source=source)


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
    publish: str = ""


def commit(
    ready: Sequence[Ready],
    index: Index,
    target: Target,
    failures: list[Failure],
    expect: Mapping[str, Digest | None],
) -> Landed:
    """Create the next generation, on top of whoever was faster.

    Raises:
        ExpectationError: a moving tag is not where it was expected.
    """
    changes = [item.change for item in ready]
    for change in changes:
        for data in change.evidence:
            add_named(target.store, evidence_path(sha256(data)), data)

    def entries(state: Index) -> Index:
        after = state.merge(_entries(ready, state, target, failures))
        if expect:
            _require_expected(expect, state, pointed(state, after))
        return after

    return amend(index, groups(changes), target, publish_key(changes), entries)


def amend(
    index: Index,
    names: Collection[str],
    target: Target,
    publish_id: str,
    change: Callable[[Index], Index],
) -> Landed:
    """Commit what `change` makes of the newest state of some groups; nothing, if that is nothing.

    `index` is a state that was read before anything was written: what was committed since then
    under the same id is this very change.

    Raises:
        TemporaryError: others committed first for too long.
    """
    store = target.store
    with store.turn("commit"):
        for _ in _attempts():
            later = tuple(following(store, index.tip))
            if later:
                index = read_groups(store, later[-1], names)
            for tip in later:
                # The answer got lost, or another process published the very same change.
                if publish_id in tip.generation.publishes:
                    return Landed(index=index, made=tip.generation.number, publish=publish_id)
            after = pointed(index, change(index))
            if after.shards == index.shards:
                return Landed(index=index, made=None)
            made = commit_documents(
                index, after, store=store_id(target, index.tip), publish=publish_id, now=target.now
            )
            if is_created(made, store):
                return Landed(index=after, made=index.number + 1, publish=publish_id)
    raise TemporaryError(f"others committed first for {COMMIT_TIMEOUT_S:g} s: publish again")


def require_touched(expect: Iterable[str], names: Collection[str]) -> None:
    """See to it that each expectation is of a moving tag that a publish could move.

    Raises:
        InputError: one is not.
    """
    for name in expect:
        if name not in names:
            message = f"{name} is no moving tag that this publish could touch"
            hint = f"it touches {', '.join(sorted(names)[:6])}"
            raise InputError(Diagnostic(code="expect", message=message, hint=hint))


def _require_expected(expect: Mapping[str, Digest | None], before: Index, after: Index) -> None:
    require_touched(expect, before.tags.keys() | after.tags.keys())
    for name, want in expect.items():
        if before.tags.get(name) != want:
            raise ExpectationError(name, have=before.tags.get(name), want=want)


def _entries(
    ready: Sequence[Ready], index: Index, target: Target, failures: list[Failure]
) -> list[Entry]:
    """Return what this state of the index takes; what another publisher made impossible fails."""
    refused = {failure.entry.id for failure in failures}
    found = []
    for item in ready:
        change = item.change
        if change.entry.id in refused:
            continue
        try:
            known = as_published(change, index, target.place)
            entry = settled(known, index, target.now)
            if entry is not None:
                item.bring(entry, known.source, target)
                found.append(entry)
        except CuratorError as error:
            failures.append(Failure(entry=change.entry, error=error))
    return found


def pointed(before: Index, after: Index) -> Index:
    """Return the state with the moving tags of the groups whose entries changed.

    A tag that names the image of an entry which only a newer curator can read stays where it is:
    which of two is better can be said by who can read both, and by nobody else.
    """
    changed = {
        group_of_shard(key)
        for key, shard in after.shards.items()
        if shard != before.shards.get(key)
    }
    tags = {name: floating_tags(after.group(name)) for name in sorted(changed)}
    return after.point({name: {**found, **_held(before, name)} for name, found in tags.items()})


def _held(index: Index, group: str) -> Mapping[str, Digest]:
    """Return the moving tags of a group that entries of newer curators hold."""
    if not index.later(group):
        return {}
    known = {entry.digest for entry in index.group(group)}
    tags = index.pointed.get(group, {})
    return {name: digest for name, digest in tags.items() if digest not in known}


def is_created(made: Commit, store: Store) -> bool:
    """Write what is named by its hash, then try to create the generation; False if it was taken."""
    for document in made.named:
        add_named(store, document.path, document.data)
    try:
        store.add(made.generation.path, made.generation.data)
    except ConflictError:
        return False
    except TemporaryError:
        # It may have landed all the same: what stands there decides.
        found = store.read(made.generation.path)
        if found is None:
            raise
        return found.data == made.generation.data
    return True


def add_named(store: Store, path: str, data: bytes) -> None:
    """Add a document that is named by its hash: other bytes under that name are damage."""
    try:
        store.add(path, data)
    except ConflictError as error:
        raise IntegrityError(f"{path} holds other bytes than its name says") from error


def publish_key(changes: Sequence[Change]) -> str:
    """Return the hash of what is published, whoever publishes it and when."""
    content = [
        {
            "entry": {**change.entry.to_json(), "published": None},
            "evidence": sorted(sha256(data) for data in change.evidence),
        }
        for change in sorted(changes, key=lambda change: change.entry.id)
    ]
    return hex_of(sha256(canonical_json(content)))


def store_id(target: Target, tip: Tip | None = None) -> str:
    """Return the identity of the store of a chain.

    The first publish of all gives it one; the first publish with keys gives it these.

    Raises:
        MixedError: the chain has no configuration, or another store's.
        RefusedError: as `require_keys`.
    """
    # One reading decides, and its etag is the condition: of two first publishers one is first.
    blob = target.store.read(CONFIG_PATH)
    data = blob.data if blob else None
    keys = target.signer.public if target.signer else ()
    if tip is None and data is None:
        config = Config(store=str(uuid.uuid4()), registry=str(target.place))
    else:
        config = own_config(data, tip) if tip else parse(Config, data or b"", CONFIG_PATH)
        require_keys(config, target)
        if config.keys or not keys:
            return config.store
    signed = config.model_copy(update={"keys": keys, "threshold": max(1, len(keys))})
    if signed.keys:
        sign_first(signed, target)
    try:
        target.store.replace(CONFIG_PATH, signed.data, blob.etag if blob else None)
    except ConflictError:
        return store_id(target, tip)
    return config.store


def _attempts() -> Iterator[None]:
    """Yield once, then again after growing random pauses until the time is up."""
    deadline = time.monotonic() + COMMIT_TIMEOUT_S
    longest = 0.002
    while time.monotonic() < deadline:
        yield
        time.sleep(random.uniform(0, longest))  # noqa: S311 - spreads writers, hides nothing
        longest = min(longest * 2, LONGEST_PAUSE_S)
