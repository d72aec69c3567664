"""What is published, as values: entries in shards, states in a chain of generations, one head.

- The index is the truth and tags are its projection: everything here is computed from documents.
- A generation is immutable and is the commit; the head is only where readers start.
- A document that does not have the hash it is named by is an `IntegrityError`, never a guess.
- Fields and entries of newer versions survive a rewrite.
- Time is passed in as text; nothing here asks a clock.

    index = read_index(store)
    entry = index.find(cell="cupy-14.2.0-cuda12.9-py3.11")
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from curator.errors import IntegrityError, RefusedError
from curator.index._chain import (
    CONFIG_PATH,
    HEAD_PATH,
    Document,
    Source,
    Tip,
    evidence_path,
    following,
    generation_path,
    read_config,
    read_generation,
    read_tip,
    shard_path,
)
from curator.index._model import (
    SHORT_KEY,
    SPEC,
    Channel,
    Config,
    Coverage,
    Driver,
    Entry,
    EntryChange,
    Generation,
    Head,
    LaterEntry,
    Model,
    Outcome,
    Shard,
    ShardLink,
    Sm,
    Stack,
    State,
    Status,
    SuiteResult,
    entry_id,
    group_of,
    instant,
    minor_of,
)
from curator.index._read import MAX_DOCUMENT_BYTES, parse
from curator.oci import sha256

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from curator.oci import Digest

__all__ = [
    "CONFIG_PATH",
    "HEAD_PATH",
    "SHORT_KEY",
    "SPEC",
    "Channel",
    "Config",
    "Coverage",
    "Document",
    "Driver",
    "Entry",
    "Generation",
    "Head",
    "Index",
    "Model",
    "Outcome",
    "Sm",
    "Stack",
    "State",
    "Status",
    "SuiteResult",
    "Tip",
    "documents",
    "entry_id",
    "evidence_path",
    "following",
    "generation_path",
    "group_of",
    "head_document",
    "instant",
    "minor_of",
    "parse",
    "read_config",
    "read_generation",
    "read_index",
    "read_tip",
    "shard_path",
]


@dataclass(frozen=True, kw_only=True)
class Index:
    """One state: the newest generation, and the shards of it that were read.

    `tags` maps each moving `repository:tag` to a digest.
    """

    tip: Tip | None = None
    shards: Mapping[str, Shard] = field(default_factory=dict)
    tags: Mapping[str, Digest] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The generation's number; 0 before the first."""
        return self.tip.generation.number if self.tip else 0

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
            if _group(key) == name
            for entry in shard.known
        )

    def merge(self, entries: Iterable[Entry], tags: Mapping[str, Digest] | None = None) -> Index:
        """Return the index with these entries added or replaced by id, and with these tags.

        The generation stays: the result is what the next one will say.

        Raises:
            RefusedError: an entry would replace one that a newer version wrote.
        """
        shards = dict(self.shards)
        for key, group in groupby(sorted(entries, key=lambda e: e.shard), key=lambda e: e.shard):
            self._require(key)
            shards[key] = _merged(shards.get(key, Shard(key=key, entries=())), tuple(group))
        return replace(self, shards=shards, tags=self.tags if tags is None else tags)

    def _require(self, key: str) -> None:
        if self.tip and key in self.tip.generation.shards and key not in self.shards:
            raise ValueError(f"shard {key} was not read, so it cannot be merged into")


def _by_cell_and_age(entry: Entry) -> tuple[str, str, str]:
    return entry.cell, instant(entry.published), entry.id


def _group(shard: str) -> str:
    return shard.rpartition("/")[0]


def _merged(shard: Shard, entries: tuple[Entry, ...]) -> Shard:
    found: dict[str, Entry | LaterEntry] = {entry.id: entry for entry in shard.entries}
    for entry in entries:
        if isinstance(found.get(entry.id), LaterEntry):
            raise RefusedError(f"{entry.id} was written by a newer curator: update this one")
        found[entry.id] = entry
    return shard.model_copy(update={"entries": tuple(found[name] for name in sorted(found))})


def read_index(source: Source, groups: Collection[str] | None = None) -> Index:
    """Return the newest committed state; an empty index where nothing was published.

    `groups` limits which `framework/minor` are read; None reads every shard.

    Raises:
        IntegrityError: a document is missing, damaged, too big, or not what its hash says.
    """
    tip = read_tip(source)
    if tip is None:
        return Index()
    wanted = {
        key: link
        for key, link in tip.generation.shards.items()
        if groups is None or _group(key) in groups
    }
    shards = {key: _read_shard(source, key, link) for key, link in wanted.items()}
    return Index(tip=tip, shards=shards, tags=tip.generation.tags)


def _read_shard(source: Source, key: str, link: ShardLink) -> Shard:
    path = shard_path(link.sha256)
    blob = source.read(path)
    if blob is None:
        raise IntegrityError(f"{path} is missing: the shard of {key}")
    if sha256(blob.data) != link.sha256:
        raise IntegrityError(f"{path}: its bytes hash to {sha256(blob.data)}")
    shard = parse(Shard, blob.data, path)
    if (shard.key, len(shard.entries)) != (key, link.entries):
        raise IntegrityError(f"{path} holds {shard.key}, expected {link.entries} entries of {key}")
    return shard


def documents(
    before: Index, after: Index, *, store: str, publish: str, now: str
) -> tuple[Document, ...]:
    """Return what takes the store from one state to the next, in write order.

    Changed shards come first; the last document is the generation, whose creation commits.
    `after` is `before.merge(…)`; `publish` is the change's id; `now` is RFC 3339 UTC.

    Raises:
        RefusedError: a document would be larger than readers accept.
    """
    changed = {key: shard for key, shard in after.shards.items() if shard != before.shards.get(key)}
    shards = {key: shard.data for key, shard in sorted(changed.items())}
    links = dict(before.tip.generation.shards) if before.tip else {}
    for key, data in shards.items():
        links[key] = ShardLink(sha256=sha256(data), entries=len(changed[key].entries))
    generation = Generation(
        store=store,
        number=before.number + 1,
        parent=before.tip.sha256 if before.tip else None,
        at=now,
        publishes=(publish,),
        shards=links,
        tags=dict(after.tags),
        changes=_changes(before, changed),
        moved={
            name: after.tags.get(name)
            for name in sorted(before.tags.keys() | after.tags.keys())
            if before.tags.get(name) != after.tags.get(name)
        },
    )
    made = [Document(path=shard_path(sha256(data)), data=data) for data in shards.values()]
    made.append(Document(path=generation_path(generation.number), data=generation.data))
    for document in made:
        _refuse_huge(document)
    return tuple(made)


def _changes(before: Index, changed: Mapping[str, Shard]) -> tuple[EntryChange, ...]:
    return tuple(
        EntryChange(
            entry=entry.id,
            digest=entry.digest,
            repository=entry.repository,
            state=entry.status.state,
            tag=entry.tags[0] if entry.tags else None,
        )
        for key, shard in sorted(changed.items())
        for entry in _new_in(shard, before.shards.get(key))
    )


def _new_in(shard: Shard, before: Shard | None) -> tuple[Entry, ...]:
    known = {entry.id: entry for entry in before.known} if before else {}
    return tuple(entry for entry in shard.known if entry != known.get(entry.id))


def _refuse_huge(document: Document) -> None:
    if len(document.data) > MAX_DOCUMENT_BYTES:
        raise RefusedError(
            f"{document.path} would be {len(document.data)} bytes, readers accept "
            f"{MAX_DOCUMENT_BYTES}: publish fewer images at once, or retire old entries"
        )


def head_document(tip: Tip, now: str) -> Document:
    """Return the head that names a generation."""
    number = tip.generation.number
    head = Head(
        store=tip.generation.store,
        gen=number,
        path=generation_path(number),
        sha256=tip.sha256,
        signed_at=now,
    )
    return Document(path=HEAD_PATH, data=head.data)
