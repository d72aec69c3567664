"""What follows a commit: the head moves forward, tags and derived files catch up.

- Nothing here decides anything: all of it is computed from the newest generation, can be
  repeated by anybody at any time, and is what a killed publisher leaves undone.
- `projected.json` says up to which generation this was done in which registry, so that only the
  tags that moved since are looked at, and only the files that changed are written. It is a
  speed-up: without it everything is looked at.
- A tag is written only where it differs. After the tags the newest generation is asked for again:
  whoever wrote last has looked last.
- An immutable tag that names another image is never written over.
- A publisher that is overtaken and then killed between a tag and its second look can leave that
  one tag behind; comparing all tags with the index is the audit's work, not this one's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from curator.derived import MAX_CHANGES, Recent, recent_of
from curator.errors import IntegrityError, RefusedError
from curator.index import (
    SPEC,
    Model,
    following,
    parse,
    read_generation,
    read_groups,
    read_tip,
)
from curator.policy import TAGGED
from curator.publish._files import write_files
from curator.publish._head import forward, move_head, name_registry

if TYPE_CHECKING:
    from curator.index import Index, Tip
    from curator.oci import Digest
    from curator.ports import Store
    from curator.publish._values import Target

log = logging.getLogger(__name__)

MARKER_PATH: Final = "v1/projected.json"
MAX_STEPS: Final = 200
ROUNDS: Final = 3


class Marker(Model):
    """Up to which generation tags and derived files were brought, and in which registry.

    `files` are the hashes of the derived files as they were written; `recent` are the last
    changes, oldest first.
    """

    spec: Literal[1] = SPEC
    registry: str
    gen: int
    files: dict[str, str] = Field(default_factory=dict)
    recent: tuple[Recent, ...] = ()


@dataclass(slots=True)
class Wanted:
    """The tags to look at: `repository:tag` -> digest, and which of them never move."""

    digests: dict[str, Digest | None] = field(default_factory=dict)
    immutable: set[str] = field(default_factory=set)

    def add_generation(self, tip: Tip) -> None:
        """Take over what one generation moved; a later generation overrides an earlier one."""
        self.digests |= tip.generation.moved
        for change in tip.generation.changes:
            if change.tag and change.state in TAGGED:
                self._add_immutable(change.repository, change.tag, change.digest)

    def add_index(self, index: Index) -> None:
        """Take over every tag of a whole state."""
        self.digests |= index.tags
        for entry in index.entries:
            if entry.tags and entry.status.state in TAGGED:
                self._add_immutable(entry.repository, entry.tags[0], entry.digest)

    def _add_immutable(self, repository: str, tag: str, digest: Digest) -> None:
        name = f"{repository}:{tag}"
        self.digests[name] = digest
        self.immutable.add(name)


def finish(target: Target, gen: int | None = None) -> tuple[str, ...]:
    """Bring head, tags and derived files to the newest generation; return what was written.

    With `gen`, only if that generation was not brought yet: the later ones have publishers of
    their own, and one of those who wait works for all of them.

    Raises:
        RefusedError: an immutable tag names another image; or the head has to be signed, and the
            keys are not here.
        IntegrityError: the store's documents do not fit together.
        TemporaryError: store or registry did not answer; the same call finishes later.
    """
    store, written = target.store, list[str]()
    with store.turn("finish"):
        for _ in range(ROUNDS):
            marker = _read_marker(target)
            if marker is not None and gen is not None and marker.gen >= gen:
                break
            tip = read_tip(store)
            if tip is None:
                break
            written += [*move_head(tip, target), *name_registry(target)]
            if marker is not None and marker.gen == tip.generation.number:
                break
            written += _bring_up(tip, marker, target)
    return tuple(written)


def _bring_up(tip: Tip, marker: Marker | None, target: Target) -> list[str]:
    """Do what is missing since the marker, and move the marker."""
    store, written = target.store, []
    wanted, tips = Wanted(), _since(store, marker, tip)
    if tips is None:
        wanted.add_index(read_groups(store, tip))
    for later in tips or ():
        wanted.add_generation(later)
    while True:
        written += project(wanted, target)
        newer = list(following(store, tip))
        if not newer:
            break
        for later in newer:
            wanted.add_generation(later)
        tips = tips and [*tips, *newer]
        tip = newer[-1]
        written += move_head(tip, target)
    known = marker.files if marker else {}
    recent = _recent(marker, tips, tip, store)
    hashes, files = write_files(tip, tips, known, recent, target)
    number = tip.generation.number
    done = Marker(registry=str(target.place), gen=number, files=hashes, recent=recent)
    return [*written, *files, *_write_marker(done, target)]


def _recent(
    marker: Marker | None, tips: list[Tip] | None, tip: Tip, store: Store
) -> tuple[Recent, ...]:
    """Return the last changes, oldest first."""
    if marker is None or not tips:
        return recent_changes(store, tip)
    return (*marker.recent, *recent_of(tips))[-MAX_CHANGES:]


def recent_changes(store: Store, tip: Tip) -> tuple[Recent, ...]:
    """Return the last changes up to a generation, oldest first, out of the chain."""
    return tuple(recent_of(_last(store, tip)))[-MAX_CHANGES:]


def _since(store: Store, marker: Marker | None, tip: Tip) -> list[Tip] | None:
    """Return the generations since the marker; None where all has to be looked at."""
    number = tip.generation.number
    start = read_generation(store, marker.gen) if marker else None
    if marker is None or start is None or not 0 <= number - marker.gen <= MAX_STEPS:
        return None
    return list(following(store, start))


def _last(store: Store, tip: Tip) -> list[Tip]:
    """Return the newest generations, oldest first: enough for the feed."""
    found, changes, number = [tip], len(tip.generation.changes), tip.generation.number
    while changes < MAX_CHANGES and (number := number - 1):
        before = read_generation(store, number)
        if before is None:
            break
        found.append(before)
        changes += max(1, len(before.generation.changes))
    return found[::-1]


def _read_marker(target: Target) -> Marker | None:
    """Return what this registry was brought to, if that is known."""
    blob = target.store.read(MARKER_PATH)
    if blob is None:
        return None
    try:
        marker = parse(Marker, blob.data, MARKER_PATH)
    except IntegrityError as error:
        log.warning("looking at every tag: %s", error)
        return None
    return marker if marker.registry == str(target.place) else None


def project(wanted: Wanted, target: Target) -> list[str]:
    """Point each tag that differs at its digest, all that can be, then say what could not."""
    written: list[str] = []
    refusals: list[RefusedError | IntegrityError] = []
    for name, digest in sorted(wanted.digests.items()):
        # A name that lost its last image cannot be taken back from a registry by this protocol.
        if digest is None:
            continue
        try:
            if _point(name, digest, target, immutable=name in wanted.immutable):
                written.append(f"{name} -> {digest}")
        except (RefusedError, IntegrityError) as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    return written


def _point(name: str, digest: Digest, target: Target, *, immutable: bool) -> bool:
    repository, _, tag = name.rpartition(":")
    where = target.place.repository(repository).with_tag(tag)
    found = target.registry.resolve(where)
    if found is not None and found.digest == digest:
        return False
    if found is not None and immutable:
        raise RefusedError(
            f"{where} names {found.digest}, the index says {digest}: an immutable tag was "
            "written by somebody else, and is left as it is"
        )
    answered = target.registry.tag(where.with_digest(digest), tag)
    if answered != digest:
        raise IntegrityError(f"{where}: wrote {digest}, the registry answers {answered}")
    return True


def _write_marker(marker: Marker, target: Target) -> list[str]:
    def moved(data: bytes | None) -> bytes | None:
        try:
            found = parse(Marker, data or b"", MARKER_PATH)
        except IntegrityError:
            return marker.data
        is_behind = found.registry != marker.registry or found.gen < marker.gen
        return marker.data if is_behind else None

    return forward(target.store, MARKER_PATH, moved)
