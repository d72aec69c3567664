"""One published index, read document by document below a verified head."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self, TypeVar

from curator.errors import IntegrityError, MixedError, RefusedError, TemporaryError
from curator.index import (
    Config,
    parse,
    parse_generation,
    parse_group,
    parse_head,
    parse_shard,
)
from curator.oci import hex_of, sha256
from curator.places import CONFIG_PATH, HEAD_PATH, generation_path, group_path, shard_path
from curator.reader._directory import Nowhere
from curator.reader._find import answers, holds, matches_minor, meant, wanted_frameworks
from curator.reader._trust import Trust
from curator.reader._values import PATIENCE_S, Copy, MovedError
from curator.resolve import OFFERED, Catalogue, catalogue, matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from types import TracebackType

    from curator.index import Channel, Entry, Group, Shard, SigningKey, State, Tip
    from curator.oci import Digest
    from curator.reader._cache import Cache
    from curator.reader._values import Origin, Pins

log = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS: Final = 3


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class IndexReader:
    """One index, as of the last `refresh`. Not for several threads at once."""

    def __init__(
        self,
        origin: Origin,
        cache: Cache,
        *,
        trusted: Sequence[SigningKey] = (),
        threshold: int = 1,
        now: Callable[[], str] = _now,
    ) -> None:
        self._origin = origin
        self._cache = cache
        self._trust = Trust(
            trusted=tuple(trusted), threshold=threshold, now=now, pins_file=cache.pins_file
        )
        self._tip: Tip | None = None
        self._config: Config | None = None
        self._seen_at = 0.0
        self._groups: dict[Digest, Group] = {}
        self._shards: dict[Digest, Shard] = {}
        self.is_offline = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections."""
        self._origin.close()

    @property
    def generation(self) -> int:
        """The number of the state that is read."""
        return self._state.generation.number

    @property
    def at(self) -> str:
        """When that state was committed, RFC 3339 UTC."""
        return self._state.generation.at

    @property
    def registry(self) -> str:
        """Where the images are, `host[:port][/prefix]`."""
        if self._config is None:
            raise RefusedError("this index was not read: call refresh()")
        return self._config.registry

    @property
    def age_s(self) -> float:
        """How many seconds ago this state was last seen at its origin."""
        return max(0.0, time.time() - self._seen_at)

    @property
    def _state(self) -> Tip:
        if self._tip is None:
            raise RefusedError("this index was not read: call refresh()")
        return self._tip

    def reference(self, entry: Entry) -> str:
        """Return what to pull: by digest, because a tag may move."""
        return f"{self.registry}/{entry.repository}@{entry.digest}"

    def entries(
        self,
        *,
        framework: str | None = None,
        version: str | None = None,
        cuda: str | None = None,
        channel: Channel | None = None,
        states: Collection[State] = OFFERED,
    ) -> tuple[Entry, ...]:
        """Return entries, reading no more shards than needed, by id.

        `version` and `cuda` are whole versions, beginnings of them (`14`, `14.2`, `14.2.0`) or
        ranges (`>=14.1,<15`). `states` are those that are offered (active, candidate, deprecated)
        unless others are asked for: what failed a gate, was yanked, quarantined or has expired is
        no answer to "what is there".

        Raises:
            InputError: a version is neither a beginning nor a range.
            HostError: the directory of the index, or the cache that was asked for, does not work.
            RefusedError: the index was never read, or its server refuses.
            IntegrityError: a document is missing or not what its hash says.
            TemporaryError: it could not be fetched.
        """
        is_version, is_cuda = matcher("version", version), matcher("cuda", cuda)

        def read() -> tuple[Entry, ...]:
            found = [
                entry
                for shard in self._matching(framework, version, is_cuda)
                for entry in shard.known
                if is_version(entry.stack.version)
                and channel in {None, entry.channel}
                and entry.status.state in states
            ]
            return tuple(sorted(found, key=lambda entry: entry.id))

        return self._consistently(read)

    def find(self, name: str) -> Entry | None:
        """Return the entry of a tag (`cupy:14.2`), a cell (its newest), an id or a digest.

        Tags and cells lead to what is offered. An id or a digest names one image, and is answered
        whatever became of that; its `status` says so, and a warning is logged.

        Raises:
            RefusedError: the image is quarantined; or as `entries`.
            HostError: as `entries`.
            IntegrityError: as `entries`.
            TemporaryError: as `entries`.
        """
        found = self._consistently(lambda: self._found(name))
        if found is None or found.status.state in OFFERED:
            return found
        told = f"{found.id} is {found.status.state}"
        if found.status.reason:
            told += f": {found.status.reason}"
        if found.status.replaced_by:
            told += f"; it was replaced by {found.status.replaced_by}"
        if found.status.state == "quarantined":
            raise RefusedError(told)
        log.warning("%s", told)
        return found

    def catalogue(self) -> Catalogue:
        """Return all images as a resolver looks through them, whatever became of them.

        It is made once for each state.

        Raises:
            HostError: as `entries`.
            RefusedError: as `entries`.
            IntegrityError: as `entries`.
            TemporaryError: as `entries`.
        """
        data = self._cache.made(hex_of(self._state.sha256))
        if data is not None:
            with contextlib.suppress(IntegrityError):
                return Catalogue.read(data)
        return self._consistently(self._catalogue)

    def _catalogue(self) -> Catalogue:
        shards = self._matching(None, None, lambda _: True)
        entries = [entry for shard in shards for entry in shard.known]
        groups = map(self._group, self._state.generation.groups)
        tags = {name: digest for group in groups for name, digest in group.tags.items()}
        made = catalogue(self._state, self.registry, entries, tags)
        self._cache.make(hex_of(self._state.sha256), made.data)
        return made

    def refresh(self) -> bool:
        """Look for a newer state; True if there was one.

        Raises:
            HostError: as `entries`.
            RefusedError: there is no index, or its server refuses.
            IntegrityError: what is there is not to be believed; the subclass says why.
            TemporaryError: it does not answer, and there is no copy of before.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._refresh()
            except MovedError as moved:
                if attempt == ATTEMPTS - 1:
                    raise moved.error from moved
        raise AssertionError

    def _consistently(self, read: Callable[[], T]) -> T:
        """Read below the head; where a document is gone the head has moved, so start again."""
        for attempt in range(ATTEMPTS):
            try:
                return read()
            except MovedError as moved:
                if attempt == ATTEMPTS - 1:
                    raise moved.error from moved
                self.refresh()
        raise AssertionError

    def _refresh(self) -> bool:
        # Pins of before the fetch: what another reader sees meanwhile makes this one late, not old.
        before, pins = self._cache.copy(), self._cache.pins()
        try:
            return self._take(self._fetched(before), pins, is_offline=False)
        except TemporaryError as error:
            if before is None:
                raise
            if not (self.is_offline or isinstance(self._origin, Nowhere)):
                log.warning("reading the copy of before: %s", error)
            return self._take(before, pins, is_offline=True)

    def _fetched(self, before: Copy | None) -> Copy:
        """Return head and config as they are at the origin; one request where nothing changed."""
        if before is None:
            head = self._origin.get(HEAD_PATH)
        else:
            head = self._origin.get(HEAD_PATH, before.etag, within_s=PATIENCE_S)
        if head is None:
            raise RefusedError(f"no index here: {HEAD_PATH} is not there")
        if head.data is None and before is not None:
            return replace(before, seen_at=time.time())
        if head.data is None:
            raise IntegrityError(f"{HEAD_PATH}: unchanged, says the server, and never sent it")
        config = self._origin.get(CONFIG_PATH)
        if config is None or config.data is None:
            raise MovedError(IntegrityError(f"{CONFIG_PATH} is missing"))
        etag = head.etag if head.etag and head.etag.isascii() and head.etag.isprintable() else None
        return Copy(data=head.data, etag=etag, seen_at=time.time(), config=config.data)

    def _take(self, copy: Copy, pins: Pins | None, *, is_offline: bool) -> bool:
        """Verify a head and what it names, and let the reader stand there."""
        head, config = parse_head(copy.data), parse(Config, copy.config, CONFIG_PATH)
        self._trust.verify(head, config, pins, is_offline=is_offline)
        tip = parse_generation(self._named(generation_path(head.gen), head.sha256), head.gen)
        if tip.generation.store != head.store:
            raise MixedError(
                f"the head is of store {head.store}, generation {head.gen} of another one"
            )
        is_new = self._tip is None or self._tip.sha256 != tip.sha256
        if not is_offline and self._cache.rise(
            lambda now: self._trust.risen(now, pins, head, config), copy
        ):
            self._forget(tip)
        self._tip, self._config, self._seen_at = tip, config, copy.seen_at
        self.is_offline = is_offline
        return is_new

    def _named(self, path: str, digest: Digest) -> bytes:
        """Return a document by its hash, from the cache or the origin.

        Raises:
            MovedError: it is not there, or another one is.
        """
        known = self._cache.document(digest)
        if known is not None:
            return known
        fetched = self._origin.get(path)
        if fetched is None or fetched.data is None:
            raise MovedError(IntegrityError(f"{path} is missing"))
        if sha256(fetched.data) != digest:
            raise MovedError(MixedError(f"{path}: expected {digest}, found {sha256(fetched.data)}"))
        self._cache.keep(digest, fetched.data)
        return fetched.data

    def _group(self, name: str) -> Group:
        link = self._state.generation.groups[name]
        if link.sha256 not in self._groups:
            data = self._named(group_path(link.sha256), link.sha256)
            self._groups[link.sha256] = parse_group(data, name, link)
        return self._groups[link.sha256]

    def _shard(self, group: Group, key: str) -> Shard:
        link = group.shards[key]
        if link.sha256 not in self._shards:
            data = self._named(shard_path(link.sha256), link.sha256)
            self._shards[link.sha256] = parse_shard(data, key, link)
        return self._shards[link.sha256]

    def _matching(
        self, framework: str | None, version: str | None, is_cuda: Callable[[str], bool]
    ) -> Iterator[Shard]:
        for name in self._state.generation.groups:
            own, _, minor = name.partition("/")
            if framework in {None, own} and matches_minor(minor, version):
                group = self._group(name)
                for key in group.shards:
                    if is_cuda(key.rpartition("/")[2]):
                        yield self._shard(group, key)

    def _found(self, name: str) -> Entry | None:
        names = self._state.generation.groups
        frameworks = wanted_frameworks(name, {group.partition("/")[0] for group in names})
        groups = [self._group(g) for g in names if g.partition("/")[0] in frameworks]
        for group in groups:
            if name in group.tags:
                there = self._entries([group])
                return meant(entry for entry in there if holds(entry, name, group.tags[name]))
        return meant(entry for entry in self._entries(groups) if answers(entry, name))

    def _entries(self, groups: Iterable[Group]) -> Iterator[Entry]:
        for group in groups:
            for key in group.shards:
                yield from self._shard(group, key).known

    def _forget(self, tip: Tip) -> None:
        """Drop what neither this state nor the one before names."""
        kept: set[Digest] = set()
        for state in filter(None, (self._tip, tip)):
            kept.add(state.sha256)
            for name, link in state.generation.groups.items():
                kept.add(link.sha256)
                data = self._cache.document(link.sha256)
                if data is not None:
                    parts = parse_group(data, name, link).shards.values()
                    kept |= {part.sha256 for part in parts}
        self._groups = {name: group for name, group in self._groups.items() if name in kept}
        self._shards = {name: shard for name, shard in self._shards.items() if name in kept}
        self._cache.forget_all_but(kept)
