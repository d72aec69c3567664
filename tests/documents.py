"""Index documents in memory, whole ones and ones that were tampered with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from curator.index import (
    HEAD_PATH,
    Driver,
    Entry,
    Index,
    Stack,
    Status,
    SuiteResult,
    commit_documents,
    entry_id,
    generation_path,
    group_of,
    group_path,
    head_document,
    head_of,
    read_index,
    shard_path,
)
from curator.oci import hex_of, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.index import Document

Tree = dict[str, Any]


@dataclass(frozen=True)
class Held:
    data: bytes


@dataclass
class Memory:
    """Documents in a dictionary."""

    files: dict[str, bytes] = field(default_factory=dict)

    def read(self, path: str) -> Held | None:
        return Held(self.files[path]) if path in self.files else None

    def write(self, *written: Document) -> None:
        self.files |= {document.path: document.data for document in written}


def entry(version: str = "14.2.0", cuda: str = "12.9", **changes: Any) -> Entry:
    cell = f"cupy-{version}-cuda{cuda}-py3.11"
    recipe = hex_of(sha256(f"{cell} {changes.pop('build', 1)}".encode()))
    digest = sha256(f"image {recipe}".encode())
    test = SuiteResult(
        suite="contents",
        verdict="pass",
        evidence=sha256(b"report"),
        at="2026-11-23T10:00:00Z",
        probe="0" * 64,
    )
    values: dict[str, Any] = {
        "id": entry_id(cell, recipe),
        "cell": cell,
        "digest": digest,
        "platform_digest": digest,
        "repository": "candidate/cupy",
        "platforms": ("linux/amd64",),
        "size": 123,
        "stack": Stack(framework="cupy", version=version, cuda=cuda, python="3.11"),
        "driver": Driver(min="525.60.13", rule="CUDA 12.x family"),
        "tests": (test,),
        "base": "debian-12@abc",
        "recipe": recipe,
        "lock": sha256(b"lock"),
        "created": "2026-11-23T09:00:00Z",
        "status": Status(state="candidate"),
        "channel": "candidate",
        "tags": (f"{version}-cuda{cuda}-py3.11-{recipe[:12]}",),
        "published": "2026-11-23T11:00:00Z",
    }
    return Entry(**(values | changes))


def committed(source: Memory, *entries: Entry, publish: str = "a") -> Index:
    before = read_index(source)
    stack = entries[0].stack
    tags = {f"candidate/cupy:{publish}": entries[0].digest}
    made = commit_documents(
        before,
        before.merge(entries).point({group_of(stack.framework, stack.version): tags}),
        store="store-1",
        publish=hex_of(sha256(publish.encode())),
        now="2026-11-23T12:00:00Z",
    )
    source.write(*made.named, made.generation)
    source.write(head_document(head_of(made.tip, "2026-11-23T12:00:00Z")))
    return read_index(source)


@cache
def two_generations() -> Memory:
    source = Memory()
    committed(source, entry(), entry(cuda="13.0"))
    committed(source, entry("14.10.0"), publish="b")
    return source


def filled() -> Memory:
    return Memory(dict(two_generations().files))


def rewritten(source: Memory, kind: str, change: Callable[[Tree], Tree]) -> None:
    """Change one document of the newest generation and make every hash above it fit."""
    number = read_index(source).number
    path = generation_path(number)
    generation = json.loads(source.files[path])
    if kind in {"shard", "group"}:
        name, link = min(generation["groups"].items())
        group = json.loads(source.files[group_path(link["sha256"])])
        if kind == "shard":
            key, part = min(group["shards"].items())
            shard = change(json.loads(source.files[shard_path(part["sha256"])]))
            group["shards"][key] = link_to(source, shard, "shard", count_of(shard, "entries"))
        else:
            group = change(group)
        count = sum_of(group)
        generation["groups"][name] = link_to(source, group, "group", count)
    elif kind == "generation":
        generation = change(generation)
    source.files[path] = json.dumps(generation).encode()
    head = json.loads(source.files[HEAD_PATH]) | {"sha256": sha256(source.files[path])}
    if kind == "head":
        head = change(head)
    source.files[HEAD_PATH] = json.dumps(head).encode()


def link_to(source: Memory, tree: Any, kind: str, entries: int) -> Tree:
    """Store a document under its hash, and return what points at it."""
    data = json.dumps(tree).encode()
    source.files[f"v1/{kind}/{hex_of(sha256(data))}.json"] = data
    return {"sha256": sha256(data), "entries": entries}


def count_of(tree: Any, field: str) -> int:
    values = tree.get(field) if isinstance(tree, dict) else None
    return len(values) if isinstance(values, list) else 0


def sum_of(group: Any) -> int:
    shards = group.get("shards") if isinstance(group, dict) else None
    links = shards.values() if isinstance(shards, dict) else ()
    counts = [link.get("entries") for link in links if isinstance(link, dict)]
    return sum(count for count in counts if isinstance(count, int) and count >= 0)
