"""Publishing as one transaction: images by digest, documents, one commit, then what follows it.

- Before the commit (the exclusive creation of `gen/<n+1>.json`) a reader sees nothing of it;
  from then on it is published, whatever dies. `recover` finishes what a killed publisher left.
- Whoever loses the race for a generation computes its change again on the winner's and retries.
- An image is copied by digest and signed before an index may name it; an immutable tag that names
  another image is refused before anything is written.
- The same content published twice is one publish, and the second one writes nothing.
- One image that cannot be published is a `Failure` in the answer; the others are published. A
  moving tag that is not where it was expected rejects all of them.

    answer = publish([change], Target(store=store, registry=registry, place=place, now=now))
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from curator.errors import CuratorError, RefusedError
from curator.index import read_index
from curator.policy import moving_tags
from curator.publish._audit import Audit, audit
from curator.publish._bring import Ready, bring
from curator.publish._check import Checked, Finding, check_store, generation_of
from curator.publish._commit import (
    Landed,
    as_published,
    commit,
    groups,
    publish_key,
    require_touched,
    settled,
)
from curator.publish._dry import Rehearsal
from curator.publish._finish import finished
from curator.publish._head import require_writer
from curator.publish._rebuild import Rebuilt, rebuild
from curator.publish._sign import sign_image
from curator.publish._site import mend_site, read_catalogue, write_site
from curator.publish._values import (
    AlreadyCommitted,
    Answer,
    Change,
    Committed,
    ExpectationError,
    Failure,
    Rejected,
    TakenError,
    Target,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from curator.index import Entry, Index
    from curator.oci import Digest
    from curator.settings import Place

__all__ = [
    "AlreadyCommitted",
    "Answer",
    "Audit",
    "Change",
    "Checked",
    "Committed",
    "ExpectationError",
    "Failure",
    "Finding",
    "Rebuilt",
    "Rehearsal",
    "Rejected",
    "TakenError",
    "Target",
    "audit",
    "check_store",
    "generation_of",
    "mend_site",
    "publish",
    "publish_key",
    "read_catalogue",
    "rebuild",
    "recover",
    "require_writer",
    "sign_image",
    "write_site",
]

log = logging.getLogger(__name__)


def publish(
    changes: Sequence[Change], target: Target, *, expect: Mapping[str, Digest | None] | None = None
) -> Answer:
    """Publish images in one generation. Safe to call again after any end.

    `expect` says where moving tags (`repository:tag`) have to be before this publish: at a digest,
    or absent (None); a tag that it does not name may be anywhere. Of what is published already
    nothing is expected any more.

    Raises:
        InputError: `expect` names a tag that this publish could not move.
        IntegrityError: the store's documents do not fit together; nothing was published.
        RefusedError: the store is signed, and the keys are not here; nothing was published.
        TemporaryError: the store did not answer, or others committed first for too long.
    """
    index = read_index(target.store, groups(changes))
    failures: list[Failure] = []
    said = _distinct(changes, failures)
    news = [item for change in said for item in _news(change, index, target, failures)]
    if news:
        require_writer(target, index.tip)
    elif expect:
        require_touched(expect, index.tags.keys() | _names(change.entry for change in said))
    ready = [item for item in news if _is_brought(item, target, failures)]
    try:
        landed = (
            commit(ready, index, target, failures, expect or {})
            if ready
            else Landed(index=index, made=None)
        )
    except ExpectationError as error:
        return Rejected(reason=str(error), have=error.have, want=error.want)
    entries = _held(said, landed.index, target.place, failures)
    if failures and not entries:
        return _rejected(failures)
    failed = tuple(failures)
    unfinished = _finish(target, landed.made, entries)
    if landed.made is None:
        return AlreadyCommitted(
            gen=landed.index.number, entries=entries, failures=failed, unfinished=unfinished
        )
    return Committed(
        gen=landed.made,
        publish=landed.publish,
        entries=entries,
        failures=failed,
        unfinished=unfinished,
    )


def recover(target: Target) -> tuple[str, ...]:
    """Finish what killed publishers left, and the page; return what was written, if anything was.

    Idempotent, and a few small reads where there is nothing to do.

    Raises:
        RefusedError: an immutable tag names another image, as long as it does; every other tag
            was brought up.
        TemporaryError: store or registry did not answer; the same call finishes later.
    """
    done = finished(target)
    pages = write_site(target.store)
    done.tell()
    return (*done.written, *pages)


def _finish(target: Target, gen: int | None, entries: Iterable[Entry]) -> CuratorError | None:
    """Bring up what follows a commit, and return what keeps it, or these entries' tags, behind."""
    names = {f"{entry.repository}:{tag}" for entry in entries for tag in entry.tags}
    try:
        finished(target, gen).tell_publisher(names)
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


def _names(entries: Iterable[Entry]) -> set[str]:
    """Return the moving tags that entries compete for: `repository:tag`."""
    return {f"{entry.repository}:{tag}" for entry in entries for tag in moving_tags(entry)}


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


def _held(
    changes: Sequence[Change], index: Index, place: Place, failures: list[Failure]
) -> tuple[Entry, ...]:
    """Return what the index holds of the changes; what it does not hold is a failure.

    Who published the very same images first may have had to leave one of them out.
    """
    lost = {failure.entry.id for failure in failures}
    entries = []
    for change in (change for change in changes if change.entry.id not in lost):
        want = as_published(change, index, place).entry
        found = index.find(cell=want.cell, recipe=want.recipe)
        if found is not None and found.digest == want.digest:
            entries.append(found)
            continue
        error = RefusedError(f"{want.id} was left out by who published the same images at once")
        if found is not None:
            error = TakenError(want.id, have=found.digest, want=want.digest)
        failures.append(Failure(entry=change.entry, error=error))
    return tuple(entries)


def _news(change: Change, index: Index, target: Target, failures: list[Failure]) -> Iterator[Ready]:
    """Yield the change if the index lacks something of it; one that it refuses is a failure."""
    try:
        known = as_published(change, index, target.place)
        entry = settled(known, index, target.now)
    except CuratorError as error:
        failures.append(Failure(entry=change.entry, error=error))
        return
    if entry is not None:
        yield Ready(change=change, entry=entry, source=known.source)


def _is_brought(item: Ready, target: Target, failures: list[Failure]) -> bool:
    """Bring an image into its repository; one that cannot be brought is a failure."""
    try:
        _bring(item, target)
    except CuratorError as error:
        failures.append(Failure(entry=item.change.entry, error=error))
        return False
    return True


def _bring(item: Ready, target: Target) -> None:
    """Bring an image, or the same one that somebody else built and published meanwhile."""
    try:
        bring(item.entry, item.source, target)
    except TakenError:
        index = read_index(target.store, groups([item.change]))
        later = as_published(item.change, index, target.place)
        if later.entry.digest == item.entry.digest:
            raise
        entry = settled(later, index, target.now)
        if entry is not None:
            bring(entry, later.source, target)
