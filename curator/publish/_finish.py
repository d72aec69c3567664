"""What follows a commit: the head moves forward, tags and derived files catch up.

- Nothing here decides anything: all of it is computed from the newest generation, can be
  repeated by anybody at any time, and is what a killed publisher leaves undone.
- `projected.json` says up to which generation this was done in which registry, so that only the
  tags that moved since are looked at. It is a speed-up: without it every tag is looked at.
- A tag is written only where it differs. After the tags the newest generation is asked for again:
  whoever wrote last has looked last.
- An immutable tag that names another image is never written over.
- A publisher that is overtaken and then killed between a tag and its second look can leave that
  one tag behind; comparing all tags with the index is the audit's work, not this one's.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from curator.errors import ConflictError, IntegrityError, RefusedError, TemporaryError
from curator.index import (
    CONFIG_PATH,
    HEAD_PATH,
    SPEC,
    Head,
    Model,
    following,
    head_document,
    parse,
    read_config,
    read_generation,
    read_index,
    read_tip,
)
from curator.oci import canonical_json
from curator.policy import TAGGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.index import Index, Tip
    from curator.oci import Digest
    from curator.ports import Registry, Store
    from curator.settings import Place

log = logging.getLogger(__name__)

MARKER_PATH: Final = "v1/projected.json"
WHOLE_PATH: Final = "v1/index.json"
MAX_WHOLE_ENTRIES: Final = 4000
MAX_STEPS: Final = 200
ATTEMPTS: Final = 100


class Marker(Model):
    """Up to which generation tags and derived files were brought, and in which registry."""

    spec: Literal[1] = SPEC
    registry: str
    gen: int


@dataclass(slots=True)
class _Wanted:
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


def finish(store: Store, registry: Registry, place: Place, now: str) -> tuple[str, ...]:
    """Bring head, tags and derived files to the newest generation; return what was written.

    Raises:
        RefusedError: an immutable tag names another image.
        TemporaryError: store or registry did not answer; the same call finishes later.
    """
    tip = read_tip(store)
    if tip is None:
        return ()
    written = [*_move_head(store, tip, now), *_name_registry(store, place)]
    marker = _read_marker(store, place)
    if marker == tip.generation.number:
        return tuple(written)
    wanted = _Wanted()
    _collect(store, wanted, marker, tip)
    while True:
        written += _project(wanted, registry, place)
        newer = list(following(store, tip))
        if not newer:
            break
        for tip in newer:
            wanted.add_generation(tip)
        written += _move_head(store, tip, now)
    written += _write_whole(store, tip, place)
    written += _write_marker(store, tip, place)
    return tuple(written)


def _move_head(store: Store, tip: Tip, now: str) -> list[str]:
    document = head_document(tip, now)

    def is_behind(data: bytes) -> bool:
        return parse(Head, data, HEAD_PATH).gen < tip.generation.number

    return _forward(store, HEAD_PATH, document.data, is_behind)


def _name_registry(store: Store, place: Place) -> list[str]:
    """Let the configuration say where images are pulled from, if they moved."""
    config = read_config(store)
    if config is None or config.registry == str(place):
        return []
    data = config.model_copy(update={"registry": str(place)}).data
    return _forward(store, CONFIG_PATH, data, lambda found: found != data)


def _read_marker(store: Store, place: Place) -> int | None:
    """Return the generation that this registry was brought to, if that is known."""
    blob = store.read(MARKER_PATH)
    if blob is None:
        return None
    try:
        marker = parse(Marker, blob.data, MARKER_PATH)
    except IntegrityError as error:
        log.warning("looking at every tag: %s", error)
        return None
    return marker.gen if marker.registry == str(place) else None


def _collect(store: Store, wanted: _Wanted, marker: int | None, tip: Tip) -> None:
    """Collect the tags that moved since the marker; all tags where that is not known."""
    number = tip.generation.number
    start = read_generation(store, marker) if marker else None
    if marker is None or start is None or not 0 <= number - marker <= MAX_STEPS:
        wanted.add_index(read_index(store))
        return
    for later in following(store, start):
        wanted.add_generation(later)


def _project(wanted: _Wanted, registry: Registry, place: Place) -> list[str]:
    """Point each tag that differs at its digest, all that can be, then say what could not."""
    written: list[str] = []
    refusals: list[RefusedError | IntegrityError] = []
    for name, digest in sorted(wanted.digests.items()):
        # A name that lost its last image cannot be taken back from a registry by this protocol.
        if digest is None:
            continue
        try:
            if _point(name, digest, registry, place, immutable=name in wanted.immutable):
                written.append(f"{name} -> {digest}")
        except (RefusedError, IntegrityError) as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]
    return written


def _point(name: str, digest: Digest, registry: Registry, place: Place, *, immutable: bool) -> bool:
    repository, _, tag = name.rpartition(":")
    target = place.repository(repository).with_tag(tag)
    found = registry.resolve(target)
    if found is not None and found.digest == digest:
        return False
    if found is not None and immutable:
        raise RefusedError(
            f"{target} names {found.digest}, the index says {digest}: an immutable tag was "
            "written by somebody else, and is left as it is"
        )
    answered = registry.tag(target.with_digest(digest), tag)
    if answered != digest:
        raise IntegrityError(f"{target}: wrote {digest}, the registry answers {answered}")
    return True


def _write_whole(store: Store, tip: Tip, place: Place) -> list[str]:
    """Write the one file that holds everything, for readers with nothing but curl."""
    number, data = _whole(store, tip, place)

    def is_behind(found: bytes) -> bool:
        return found != data and _generation_of(found) <= number

    return _forward(store, WHOLE_PATH, data, is_behind)


def _whole(store: Store, tip: Tip, place: Place) -> tuple[int, bytes]:
    """Return the file and its generation; a large farm's file names the state, without entries.

    One line for each field and each entry: easy to compare, and quick to write.
    """
    entries = "null"
    if tip.generation.count <= MAX_WHOLE_ENTRIES:
        index = read_index(store)
        tip = index.tip or tip
        lines = ",\n".join(entry.data.decode() for entry in index.entries)
        entries = f"[\n{lines}\n]" if lines else "[]"
    fields: dict[str, Any] = {
        "spec": SPEC,
        "store": tip.generation.store,
        "registry": str(place),
        "generation": tip.generation.number,
        "sha256": tip.sha256,
        "at": tip.generation.at,
        "tags": tip.generation.tags,
    }
    texts = {name: canonical_json(value).decode() for name, value in fields.items()}
    texts["entries"] = entries
    body = ",\n".join(f'"{name}":{text}' for name, text in sorted(texts.items()))
    return tip.generation.number, f"{{\n{body}\n}}\n".encode()


def _generation_of(data: bytes) -> int:
    """Return the generation of a derived file; one that cannot be read is older than any."""
    try:
        number = json.loads(data)["generation"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    return number if isinstance(number, int) else 0


def _write_marker(store: Store, tip: Tip, place: Place) -> list[str]:
    marker = Marker(registry=str(place), gen=tip.generation.number)

    def is_behind(data: bytes) -> bool:
        try:
            found = parse(Marker, data, MARKER_PATH)
        except IntegrityError:
            return True
        return found.registry != marker.registry or found.gen < marker.gen

    return _forward(store, MARKER_PATH, marker.data, is_behind)


def _forward(store: Store, path: str, data: bytes, is_behind: Callable[[bytes], bool]) -> list[str]:
    """Replace a mutable document unless what stands there is as new; return what was written."""
    for _ in range(ATTEMPTS):
        blob = store.read(path)
        if blob is not None and not is_behind(blob.data):
            return []
        try:
            store.replace(path, data, blob.etag if blob else None)
        except ConflictError:
            continue
        return [path]
    raise TemporaryError(f"{path} changed {ATTEMPTS} times while it was written: try again")
