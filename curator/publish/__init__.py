"""Publishing as one transaction: images by digest, documents, one commit, then what follows it.

- Before the commit (the exclusive creation of `gen/<n+1>.json`) a reader sees nothing of it;
  from then on it is published, whatever dies. `recover` finishes what a killed publisher left.
- Whoever loses the race for a generation computes its change again on the winner's and retries.
- An image is copied by digest and looked up again before an index may name it; an immutable tag
  that names another image is refused before anything is written.
- The same content published twice is one publish, and the second one writes nothing.
- One image that cannot be published is a `Failure` in the answer; the others are published.

    answer = publish([change], store=store, registry=registry, place=place, now=now)
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from curator.errors import CuratorError, IntegrityError, RefusedError
from curator.index import read_index
from curator.policy import TAGGED, immutable_tag, repository
from curator.publish._commit import Landed, commit, groups, settled
from curator.publish._finish import finish
from curator.publish._values import (
    AlreadyCommitted,
    Answer,
    Change,
    Committed,
    Failure,
    Ports,
    Rejected,
    TakenError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.index import Index
    from curator.ports import Registry, Store
    from curator.settings import Place

__all__ = [
    "AlreadyCommitted",
    "Answer",
    "Change",
    "Committed",
    "Failure",
    "Rejected",
    "TakenError",
    "publish",
    "recover",
]

log = logging.getLogger(__name__)


def publish(
    changes: Sequence[Change], *, store: Store, registry: Registry, place: Place, now: str
) -> Answer:
    """Publish images in one generation; `now` is RFC 3339 UTC. Safe to call again after any end.

    Raises:
        IntegrityError: the store's documents do not fit together; nothing was published.
        TemporaryError: the store did not answer, or others committed first for too long.
    """
    ports = Ports(store=store, registry=registry, place=place, now=now)
    index = read_index(store, groups(changes))
    failures: list[Failure] = []
    known = [_as_published(change, index, place) for change in _distinct(changes, failures)]
    news = [change for change in known if _is_news(change, index, now, failures)]
    ready = [change for change in news if _is_ready(change, ports, failures)]
    landed = commit(ready, index, ports, failures) if ready else Landed(index=index, made=None)
    lost = {failure.entry.id for failure in failures}
    held = [change.entry for change in known if change.entry.id not in lost]
    if failures and not held:
        return _rejected(failures)
    return (AlreadyCommitted if landed.made is None else Committed)(
        gen=landed.made or landed.index.number,
        entries=tuple(landed.index.at(entry) for entry in held),
        failures=tuple(failures),
        unfinished=_finish(ports),
    )


def recover(store: Store, registry: Registry, *, place: Place, now: str) -> tuple[str, ...]:
    """Finish what killed publishers left; return what was written: nothing if all was done.

    Idempotent, and a few small reads where there is nothing to do.

    Raises:
        RefusedError: an immutable tag names another image; every other tag was brought up.
        TemporaryError: store or registry did not answer; the same call finishes later.
    """
    return finish(store, registry, place, now)


def _finish(ports: Ports) -> CuratorError | None:
    try:
        finish(ports.store, ports.registry, ports.place, ports.now)
    except CuratorError as error:
        log.warning("committed, but tags or derived files lag behind: %s", error)
        return error
    return None


def _rejected(failures: list[Failure]) -> Rejected:
    taken = next((f.error for f in failures if isinstance(f.error, TakenError)), None)
    return Rejected(
        reason=str(failures[0].error),
        have=taken.have if taken else None,
        want=taken.want if taken else None,
        failures=tuple(failures),
    )


def _distinct(changes: Sequence[Change], failures: list[Failure]) -> list[Change]:
    """Return each image once; of one that is said to be two things, nobody knows which is meant."""
    said: dict[str, Change] = {}
    for change in changes:
        other = said.setdefault(change.entry.id, change)
        if change != other and all(failure.entry.id != other.entry.id for failure in failures):
            error = RefusedError(f"{change.entry.id} stands in one publish with two contents")
            failures.append(Failure(entry=change.entry, error=error))
    lost = {failure.entry.id for failure in failures}
    return [change for change in said.values() if change.entry.id not in lost]


def _as_published(change: Change, index: Index, place: Place) -> Change:
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


def _is_news(change: Change, index: Index, now: str, failures: list[Failure]) -> bool:
    """Say whether the index lacks something of this; a change that it refuses is a failure."""
    try:
        return settled(change, index, now) is not None
    except CuratorError as error:
        failures.append(Failure(entry=change.entry, error=error))
        return False


def _is_ready(change: Change, ports: Ports, failures: list[Failure]) -> bool:
    """Bring an image into its repository; one that cannot be brought is a failure."""
    try:
        if change.entry.status.state in TAGGED:
            _bring(change, ports)
    except CuratorError as error:
        failures.append(Failure(entry=change.entry, error=error))
        return False
    return True


def _bring(change: Change, ports: Ports) -> None:
    """Copy an image by digest to where its entry says it is, and look it up there.

    Raises:
        TakenError: the immutable tag names another image.
        IntegrityError: the image that arrived is another one.
    """
    entry, registry = change.entry, ports.registry
    _require_admitted(change)
    target = ports.place.repository(entry.repository)
    name = target.with_tag(entry.tags[0])
    taken = registry.resolve(name)
    if taken is not None and taken.digest != entry.digest:
        raise TakenError(str(name), have=taken.digest, want=entry.digest)
    wanted = target.with_digest(entry.digest)
    if registry.resolve(wanted) is not None:
        return
    if change.source is None or change.source.digest != entry.digest:
        raise IntegrityError(f"{entry.id} is {entry.digest}, its source is {change.source}")
    copied = registry.copy(change.source, target)
    found = registry.resolve(wanted)
    if copied != entry.digest or found is None or found.digest != entry.digest:
        raise IntegrityError(f"{wanted}: copied {copied} from {change.source}, found {found}")


def _require_admitted(change: Change) -> None:
    """Refuse an entry whose names are not those that the policy gives."""
    entry = change.entry
    names = (repository(entry.stack.framework, entry.channel), (immutable_tag(entry),))
    if entry.channel is None or (entry.repository, entry.tags) != names:
        raise RefusedError(f"{entry.id} was not admitted by the gates: {entry.status.state}")
