"""One state of the index as a value, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from curator.errors import IntegrityError, MixedError, RefusedError
from curator.index._chain import read_tip
from curator.index._documents import Group, LaterEntry, Shard, group_of_shard
from curator.index._model import instant
from curator.index._read import parse
from curator.oci import sha256
from curator.places import group_path, shard_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from curator.index._chain import Source, Tip
    from curator.index._documents import GroupLink, ShardLink
    from curator.index._model import Entry
    from curator.oci import Digest

# What one publish reads again and again; an older shard is only parsed once more.
REMEMBERED_SHARDS = 64


@dataclass(frozen=True, kw_only=True)
class Index:
    """One state: the newest generation, and the groups and shards of it that were read.

    `pointed` holds the moving tags of each group that was read: `repository:tag` -> digest.
    """

    tip: Tip | None = None
    groups: Mapping[str, Group] = field(default_factory=dict)
    shards: Mapping[str, Shard] = field(default_factory=dict)
    pointed: Mapping[str, Mapping[str, Digest]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The generation's number; 0 before the first."""
        return self.tip.generation.number if self.tip else 0

    @cached_property
    def tags(self) -> Mapping[str, Digest]:
        """Every moving tag of the groups that were read."""
        return {name: digest for tags in self.pointed.values() for name, digest in tags.items()}

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry that was read, by cell; of one cell's entries the newest is the last."""
        found = [entry for shard in self.shards.values() for entry in shard.known]
        return tuple(sorted(found, key=_by_cell_and_age))

    @cached_property
    def _of_cell(self) -> Mapping[str, tuple[Entry, ...]]:
        return {cell: tuple(group) for cell, group in groupby(self.entries, key=lambda e: e.cell)}

    def find(self, *, cell: str, recipe: str | None = None) -> Entry | None:
        """Return a cell's newest entry, or the one of a recipe key."""
        found = self._of_cell.get(cell, ())
        return next((e for e in reversed(found) if recipe in {None, e.recipe}), None)

    def at(self, entry: Entry) -> Entry:
        """Return what this state holds under an entry's id.

        Raises:
            KeyError: it holds nothing there.
        """
        found = self.find(cell=entry.cell, recipe=entry.recipe)
        if found is None:
            raise KeyError(entry.id)
        return found

    def group(self, name: str) -> tuple[Entry, ...]:
        """Return the entries of one `framework/minor`: all that its moving tags depend on."""
        return tuple(
            entry
            for key, shard in self.shards.items()
            if group_of_shard(key) == name
            for entry in shard.known
        )

    def later(self, group: str) -> frozenset[str]:
        """Return the ids of what a newer curator wrote into a `framework/minor`."""
        return frozenset(
            entry.id
            for key, shard in self.shards.items()
            if group_of_shard(key) == group
            for entry in shard.entries
            if isinstance(entry, LaterEntry)
        )

    def require_known(self, entry: Entry) -> None:
        """See to it that an entry replaces none that only a newer version can read.

        Raises:
            RefusedError: a newer version wrote what stands under its id.
        """
        if entry.id in self.later(group_of_shard(entry.shard)):
            raise RefusedError(f"{entry.id} was written by a newer curator: update this one")

    def merge(self, entries: Iterable[Entry]) -> Index:
        """Return the index with these entries added or replaced by id.

        The generation stays: the result is what the next one will say.

        Raises:
            RefusedError: an entry would replace one that a newer version wrote.
        """
        shards = dict(self.shards)
        for key, group in groupby(sorted(entries, key=lambda e: e.shard), key=lambda e: e.shard):
            self._require(group_of_shard(key))
            news = tuple(group)
            for entry in news:
                self.require_known(entry)
            shards[key] = _merged(shards.get(key, Shard(key=key, entries=())), news)
        return replace(self, shards=shards)

    def point(self, tags: Mapping[str, Mapping[str, Digest]]) -> Index:
        """Return the index with the moving tags of these groups."""
        return replace(self, pointed={**self.pointed, **tags})

    def _require(self, group: str) -> None:
        if self.tip and group in self.tip.generation.groups and group not in self.groups:
            raise ValueError(f"group {group} was not read, so it cannot be merged into")


def _by_cell_and_age(entry: Entry) -> tuple[str, str, str]:
    return entry.cell, instant(entry.published), entry.id


def _merged(shard: Shard, entries: tuple[Entry, ...]) -> Shard:
    found: dict[str, Entry | LaterEntry] = {entry.id: entry for entry in shard.entries}
    found |= {entry.id: entry for entry in entries}
    return shard.model_copy(update={"entries": tuple(found[name] for name in sorted(found))})


def read_index(source: Source, groups: Collection[str] | None = None) -> Index:
    """Return the newest committed state; an empty index where nothing was published.

    `groups` limits which `framework/minor` are read; None reads every shard.

    Raises:
        IntegrityError: a document is missing, damaged, too big, or not what its hash says.
    """
    tip = read_tip(source)
    return read_groups(source, tip, groups) if tip else Index()


def read_groups(source: Source, tip: Tip, groups: Collection[str] | None = None) -> Index:
    """Return the state that a generation describes, or some groups of it.

    Raises:
        IntegrityError: as `read_index`.
    """
    found: dict[str, Group] = {}
    shards: dict[str, Shard] = {}
    for name, link in tip.generation.groups.items():
        if groups is None or name in groups:
            found[name] = read_group(source, name, link)
            for key, part in found[name].shards.items():
                shards[key] = _read_shard(source, key, part)
    pointed = {name: group.tags for name, group in found.items()}
    return Index(tip=tip, groups=found, shards=shards, pointed=pointed)


def read_group(source: Source, name: str, link: GroupLink) -> Group:
    """Return a group that a generation links.

    Raises:
        IntegrityError: as `read_index`.
    """
    return parse_group(named(source, group_path(link.sha256), link.sha256), name, link)


def _read_shard(source: Source, key: str, link: ShardLink) -> Shard:
    return parse_shard(named(source, shard_path(link.sha256), link.sha256), key, link)


def named(source: Source, path: str, digest: Digest) -> bytes:
    """Return the bytes of a document that is named by its hash.

    Raises:
        IntegrityError: it is missing, or has other bytes.
    """
    blob = source.read(path)
    if blob is None:
        raise IntegrityError(f"{path} is missing")
    if sha256(blob.data) != digest:
        raise IntegrityError(f"{path}: its bytes hash to {sha256(blob.data)}")
    return blob.data


def parse_group(data: bytes, name: str, link: GroupLink) -> Group:
    """Read a group whose bytes have the right hash, and hold it against what points at it.

    Raises:
        IntegrityError: it is no group.
        MixedError: it is another one, or holds another number of entries.
    """
    path = group_path(link.sha256)
    group = parse(Group, data, path)
    if (group.key, group.count) != (name, link.entries):
        raise MixedError(f"{path} holds {group.key}, expected {link.entries} entries of {name}")
    return group


def parse_shard(data: bytes, key: str, link: ShardLink) -> Shard:
    """Read a shard whose bytes have the right hash, and hold it against what points at it.

    Raises:
        IntegrityError: it is no shard.
        MixedError: it is another one, or holds another number of entries.
    """
    path = shard_path(link.sha256)
    shard = _shard(data, path)
    if (shard.key, len(shard.entries)) != (key, link.entries):
        raise MixedError(f"{path} holds {shard.key}, expected {link.entries} entries of {key}")
    return shard


@lru_cache(maxsize=REMEMBERED_SHARDS)
def _shard(data: bytes, path: str) -> Shard:
    return parse(Shard, data, path)
