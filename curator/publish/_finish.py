"""What follows a commit: the head moves forward, tags and derived files catch up.

- Nothing here decides anything: all of it is computed from the newest generation, can be
  repeated by anybody at any time, and is what a killed publisher leaves undone.
- `projected.json` says up to which generation this was done in which registry, so that only the
  tags that moved since are looked at, and only the files that changed are written. It is a
  speed-up: without it, and where it names no generation of this chain, everything is looked at.
- A tag or file is written only where it differs. Who was alone with the marker from its look at
  the chain to its last write moves it, and is done; all others look again, at the newest state and
  at what stands there: whoever wrote last has looked last. Who cannot look again, because something
  failed, takes the marker back, so that somebody else does.
- An immutable tag that names another image is never written over, and keeps nothing else from
  being done. The marker keeps its name, and who comes next looks at it again, until it names what
  it has to or its entry is out of use.
- A publisher that is overtaken and then killed between a write and its second look can leave that
  one tag or file behind; comparing all of them with the index is the audit's work, not this one's.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from curator.derived import MAX_CHANGES, Recent, recent_of, schemas
from curator.errors import ConflictError, CuratorError, IntegrityError, RefusedError
from curator.index import (
    SPEC,
    Model,
    following,
    parse,
    read_generation,
    read_groups,
    read_tip,
)
from curator.oci import Digest  # noqa: TC001 - pydantic reads it
from curator.policy import TAGGED
from curator.publish._files import write_files
from curator.publish._head import forward, move_head, name_registry

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from curator.index import Index, Tip
    from curator.ports import Store
    from curator.publish._values import Target

log = logging.getLogger(__name__)

MARKER_PATH: Final = "v1/projected.json"
MAX_STEPS: Final = 200
ROUNDS: Final = 10


class Marker(Model):
    """Up to which generation tags and derived files were brought, and in which registry.

    `files` are the hashes of the derived files as they were written; `recent` are the last
    changes, oldest first; `refused` are the immutable tags that name another image, and what they
    have to name. `doubt` makes a marker that was taken back unlike any other.
    """

    spec: Literal[1] = SPEC
    registry: str
    gen: Annotated[int, Field(ge=0)]
    sha256: str
    files: dict[str, str] = Field(default_factory=dict)
    recent: tuple[Recent, ...] = ()
    refused: dict[str, Digest] = Field(default_factory=dict)
    doubt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """From where a finisher goes on: the marker and its generation, if it is to be believed."""

    marker: Marker | None = None
    tip: Tip | None = None

    @property
    def gen(self) -> int:
        """The generation that was brought; 0 where nothing is known."""
        return self.marker.gen if self.marker else 0

    @property
    def refused(self) -> Mapping[str, Digest]:
        """The immutable tags that named another image, and what they have to name."""
        return self.marker.refused if self.marker else {}


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
            elif change.tag:
                self.digests[f"{change.repository}:{change.tag}"] = None

    def add_index(self, index: Index) -> None:
        """Take over every tag of a whole state."""
        self.digests |= index.tags
        for entry in index.entries:
            if entry.tags and entry.status.state in TAGGED:
                self._add_immutable(entry.repository, entry.tags[0], entry.digest)

    def add_refused(self, names: Mapping[str, Digest]) -> None:
        """Take over immutable tags that could not be written before."""
        self.digests |= names
        self.immutable |= names.keys()

    def only(self, names: Collection[str]) -> dict[str, Digest]:
        """Return where some of the tags have to point."""
        return {name: digest for name, digest in self.digests.items() if digest and name in names}

    def _add_immutable(self, repository: str, tag: str, digest: Digest) -> None:
        name = f"{repository}:{tag}"
        self.digests[name] = digest
        self.immutable.add(name)


@dataclass(slots=True)
class Done:
    """What was written, and by name which tags cannot be; of some that was told before."""

    written: list[str] = field(default_factory=list)
    refusals: dict[str, RefusedError | IntegrityError] = field(default_factory=dict)
    told: frozenset[str] = frozenset()

    def tell(self) -> None:
        """Raise the first refusal, if there is one."""
        for refusal in self.refusals.values():
            raise refusal

    def tell_publisher(self, names: Collection[str]) -> None:
        """Raise the first refusal that nobody was told before, or that is of one of these tags."""
        for name, refusal in self.refusals.items():
            if name in names or name not in self.told:
                raise refusal


def finish(target: Target) -> tuple[str, ...]:
    """Bring head, tags and derived files to the newest generation; return what was written.

    Raises:
        RefusedError: an immutable tag names another image, all else was done; or the head has to
            be signed, and the keys are not here.
        IntegrityError: the store's documents do not fit together.
        TemporaryError: store or registry did not answer; the same call finishes later.
    """
    done = finished(target)
    done.tell()
    return tuple(done.written)


def finished(target: Target, gen: int | None = None) -> Done:
    """Do what `finish` does, and return its refusals beside what was written.

    With `gen`, only if that generation was not brought yet, or a tag was refused: the later ones
    have publishers of their own, and one of those who wait works for all of them.

    Raises:
        RefusedError: the head has to be signed, and the keys are not here.
        IntegrityError: as `finish`.
        TemporaryError: as `finish`.
    """
    store, done = target.store, Done()
    with store.turn("finish"):
        start, etag = _start(target)
        done.told = frozenset(start.refused)
        if gen is not None and start.gen >= gen and not start.refused:
            return done
        tip = read_tip(store)
        if tip is None:
            return done
        done.written += [*move_head(tip, target), *name_registry(target)]
        if start.gen < tip.generation.number or start.refused:
            try:
                _bring_up(tip, start, etag, target, done)
            except CuratorError:
                _take_back(start, target)
                raise
    return done


def _bring_up(tip: Tip, start: Start, etag: str | None, target: Target, done: Done) -> None:
    """Do what is missing since the marker, again while others move it, and move it."""
    store, sure = target.store, _sure(start, tip)
    for number in range(ROUNDS):
        before = len(done.written)
        marker = _project(tip, start, sure, target, done)
        if marker == start.marker and len(done.written) == before:
            return  # what was refused still is
        try:
            store.replace(MARKER_PATH, marker.data, etag)
        except ConflictError:
            if number and len(done.written) == before:
                return  # all is as it should be, after the last write of ours
        else:
            done.written.append(MARKER_PATH)
            return
        # It may have been taken back to before our start by whoever could not look again.
        again, etag = _start(target)
        start, sure = min(again, start, key=lambda one: one.gen), _schemas(marker.files)
        tip = read_tip(store) or tip
        done.written += move_head(tip, target)
    _take_back(start, target)


def _project(tip: Tip, start: Start, sure: Mapping[str, str], target: Target, done: Done) -> Marker:
    """Bring tags and derived files to a generation; return the marker that says so.

    `sure` are the hashes of files that need no look at what stands there.
    """
    store, wanted, later = target.store, Wanted(), _since(start, tip, target.store)
    if later is None:
        wanted.add_index(read_groups(store, tip))
    else:
        wanted.add_refused(start.refused)
    for one in later or ():
        wanted.add_generation(one)
    point(wanted, target, done)
    recent = _recent(start, later, tip, store)
    hashes, files = write_files(tip, later, sure, recent, target)
    done.written += files
    return Marker(
        registry=str(target.place),
        gen=tip.generation.number,
        sha256=tip.sha256,
        files=hashes,
        recent=recent,
        refused=wanted.only(wanted.immutable & done.refusals.keys()),
    )


def _since(start: Start, tip: Tip, store: Store) -> list[Tip] | None:
    """Return the generations from the marker to `tip`; None where the whole state is looked at."""
    count = tip.generation.number - start.gen
    if start.tip is None or count > MAX_STEPS:
        return None
    return list(itertools.islice(following(store, start.tip), count))


def _sure(start: Start, tip: Tip) -> Mapping[str, str]:
    """Return the files that are what the marker says.

    Generations that were left undone, or that others work at, may have left anything.
    """
    if start.marker is None:
        return {}
    is_next = tip.generation.number <= start.gen + 1
    return start.marker.files if is_next else _schemas(start.marker.files)


def _schemas(files: Mapping[str, str]) -> Mapping[str, str]:
    """Return the hashes of the schemas, which are the same in every generation."""
    return {path: digest for path, digest in files.items() if path in schemas()}


def _recent(start: Start, later: list[Tip] | None, tip: Tip, store: Store) -> tuple[Recent, ...]:
    """Return the last changes, oldest first."""
    if start.marker is None or later is None:
        return recent_changes(store, tip)
    return (*start.marker.recent, *recent_of(later))[-MAX_CHANGES:]


def recent_changes(store: Store, tip: Tip) -> tuple[Recent, ...]:
    """Return the last changes up to a generation, oldest first, out of the chain."""
    return tuple(recent_of(_last(store, tip)))[-MAX_CHANGES:]


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


def _start(target: Target) -> tuple[Start, str | None]:
    """Return what this registry was brought to, as far as that is true, and the marker's etag."""
    blob = target.store.read(MARKER_PATH)
    if blob is None:
        return Start(), None
    marker = _marker(blob.data)
    try:
        tip = read_generation(target.store, marker.gen) if marker else None
    except IntegrityError as error:
        log.warning("looking at every tag: %s", error)
        return Start(), blob.etag
    is_true = marker and tip and (marker.registry, marker.sha256) == (str(target.place), tip.sha256)
    return Start(marker=marker, tip=tip) if is_true else Start(), blob.etag


def _marker(data: bytes) -> Marker | None:
    try:
        return parse(Marker, data, MARKER_PATH)
    except IntegrityError as error:
        log.warning("looking at every tag: %s", error)
        return None


def start_over(target: Target) -> None:
    """Let whoever finishes next look at every tag and every file."""
    _take_back(Start(), target)


def _take_back(start: Start, target: Target) -> None:
    """Let whoever finishes next, or finishes now, begin where this one began, and trust no file.

    A marker that stands at an earlier generation stays there: others could not look again either.
    """
    nothing = Marker(registry=str(target.place), gen=0, sha256="")

    def back(data: bytes | None) -> bytes:
        found = _marker(data) if data is not None else None
        first = min(found or nothing, start.marker or nothing, key=lambda one: one.gen)
        return first.model_copy(update={"files": {}, "doubt": uuid.uuid4().hex}).data

    try:
        forward(target.store, MARKER_PATH, back)
    except CuratorError as error:
        log.warning("tags may lag behind until an audit: %s", error)


def point(wanted: Wanted, target: Target, done: Done) -> None:
    """Point each tag that differs at its digest, all that can be, and note what could not."""
    done.refusals.clear()
    for name, digest in sorted(wanted.digests.items()):
        # A name that lost its last image cannot be taken back from a registry by this protocol.
        if digest is None:
            continue
        try:
            if _point(name, digest, target, immutable=name in wanted.immutable):
                done.written.append(f"{name} -> {digest}")
        except (RefusedError, IntegrityError) as error:
            done.refusals[name] = error


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
