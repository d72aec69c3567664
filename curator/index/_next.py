"""The next link of the chain: which documents take a store from one state to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.errors import RefusedError
from curator.index._chain import Document, Tip
from curator.index._documents import (
    EntryChange,
    Generation,
    Group,
    GroupLink,
    Head,
    Record,
    ShardLink,
    group_of_shard,
)
from curator.oci import sha256
from curator.places import (
    HEAD_PATH,
    MAX_DOCUMENT_BYTES,
    evidence_path,
    generation_path,
    group_path,
    shard_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from curator.index._documents import Shard, Signature
    from curator.index._model import Entry, Model
    from curator.index._state import Index
    from curator.oci import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The documents of one commit: `named` by their hash, in write order, then `generation`.

    Creating the generation is what commits; `tip` is how readers will find it.
    """

    named: tuple[Document, ...]
    generation: Document
    tip: Tip


def commit_documents(before: Index, after: Index, *, store: str, publish: str, now: str) -> Commit:
    """Return what takes the store from one state to the next.

    `after` is made of `before` by `merge` and `point`; `publish` is the change's id; `now` is
    RFC 3339 UTC.

    Raises:
        RefusedError: a document would be larger than readers accept.
    """
    changed = {key: shard for key, shard in after.shards.items() if shard != before.shards.get(key)}
    named: list[Document] = []
    shards = {
        key: ShardLink(sha256=_name(shard, shard_path, named), entries=len(shard.entries))
        for key, shard in sorted(changed.items())
    }
    groups = dict(before.tip.generation.groups) if before.tip else {}
    for name in sorted(_touched(before, after, changed)):
        group = _group(after, name, shards)
        groups[name] = GroupLink(sha256=_name(group, group_path, named), entries=group.count)
    news = tuple(
        entry
        for key, shard in sorted(changed.items())
        for entry in _new_in(shard, before.shards.get(key))
    )
    record = Record(
        base=before.number,
        parent=before.tip.generation.record if before.tip else None,
        at=now,
        publish=publish,
        entries=news,
    )
    generation = Generation(
        **(before.tip.generation.extra if before.tip else {}),
        store=store,
        number=before.number + 1,
        parent=before.tip.sha256 if before.tip else None,
        at=now,
        publishes=(publish,),
        groups=groups,
        changes=tuple(_change(entry) for entry in news),
        moved=_moved(before.tags, after.tags),
        record=_name(record, evidence_path, named),
    )
    document = Document(path=generation_path(generation.number), data=generation.data)
    for item in (*named, document):
        _refuse_huge(item)
    tip = Tip(generation=generation, sha256=sha256(document.data))
    return Commit(named=tuple(named), generation=document, tip=tip)


def _name(model: Model, path: Callable[[Digest], str], named: list[Document]) -> Digest:
    """Note a document under the name that its hash gives it."""
    data = model.data
    digest = sha256(data)
    named.append(Document(path=path(digest), data=data))
    return digest


def _touched(before: Index, after: Index, changed: Mapping[str, Shard]) -> set[str]:
    """Return the groups whose shards or tags differ."""
    moved = {
        name for name, tags in after.pointed.items() if dict(tags) != before.pointed.get(name, {})
    }
    return moved | {group_of_shard(key) for key in changed}


def _group(after: Index, name: str, shards: Mapping[str, ShardLink]) -> Group:
    old = after.groups.get(name) or Group(key=name, shards={}, tags={})
    own = {key: link for key, link in shards.items() if group_of_shard(key) == name}
    tags = dict(after.pointed.get(name, {}))
    return old.model_copy(update={"shards": {**old.shards, **own}, "tags": tags})


def _moved(before: Mapping[str, Digest], after: Mapping[str, Digest]) -> dict[str, Digest | None]:
    return {
        name: after.get(name)
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _change(entry: Entry) -> EntryChange:
    return EntryChange(
        entry=entry.id,
        digest=entry.digest,
        repository=entry.repository,
        state=entry.status.state,
        tag=entry.tags[0] if entry.tags else None,
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


def head_of(tip: Tip, now: str, expires: str | None = None, before: Head | None = None) -> Head:
    """Return the unsigned head that names a generation; what is unknown in `before` is kept."""
    number = tip.generation.number
    return Head(
        **(before.extra if before else {}),
        store=tip.generation.store,
        gen=number,
        path=generation_path(number),
        sha256=tip.sha256,
        signed_at=now,
        expires=expires,
    )


def head_document(head: Head, signatures: tuple[Signature, ...] = ()) -> Document:
    """Return a head's document, with the signatures over its statement."""
    return Document(path=HEAD_PATH, data=head.model_copy(update={"signatures": signatures}).data)
