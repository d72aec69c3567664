"""A farm on a disk: a real store, a registry of files, and a fuse that kills at any instant.

`check` reads what was published with the standard library alone, so that a fault of ours in
reading cannot hide one in writing.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from curator.errors import RefusedError
from curator.index import Driver, Entry, Stack, Status, SuiteResult, entry_id, read_index
from curator.oci import MANIFEST, Descriptor, Manifest, canonical_json, hex_of, parse_digest, sha256
from curator.policy import Verdict, admitted
from curator.publish import AlreadyCommitted, Change, Committed, Rejected, publish, recover
from curator.settings import Place
from curator.store import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from curator.oci import Digest, Reference
    from curator.ports import Blob, Registry, Store

T = TypeVar("T")
NOW = "2026-11-23T12:00:00Z"
LATER = "2026-11-24T12:00:00Z"
PLACE = Place(registry="registry.example", prefix="dl")
STABLE = Verdict(channel="stable")
CANDIDATE = Verdict(channel="candidate", reasons=("gpu: not-run",))
REFUSED = Verdict(channel=None, reasons=("contents: fail",))


class FolderRegistry:
    """A registry in a directory: manifests by digest, tags as files, safe between processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def resolve(self, reference: Reference) -> Descriptor | None:
        digest = reference.digest or self._tagged(reference)
        if digest is None or not self._file(reference, digest).exists():
            return None
        return Descriptor.of(self._file(reference, digest).read_bytes(), MANIFEST)

    def manifest(self, reference: Reference) -> Manifest:
        found = self.resolve(reference)
        if found is None:
            raise RefusedError(f"{reference} is not there")
        data = self._file(reference, found.digest).read_bytes()
        return Manifest(data=data, media_type=MANIFEST)

    def push(self, layout: Path, target: Reference) -> Digest:
        listed = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
        data = (layout / "blobs/sha256" / hex_of(listed)).read_bytes()
        assert target.tag
        return self.tag(target.with_digest(self.put(target, data)), target.tag)

    def copy(self, source: Reference, target: Reference) -> Digest:
        return self.put(target, self.manifest(source).data)

    def tag(self, source: Reference, tag: str) -> Digest:
        digest = self.manifest(source).digest
        self._write(self._repository(source) / "tags" / tag, digest.encode())
        return digest

    def put(self, target: Reference, data: bytes) -> Digest:
        self._write(self._file(target, sha256(data)), data)
        return sha256(data)

    def tags(self, repository: Reference) -> dict[str, str]:
        folder = self._repository(repository) / "tags"
        return {path.name: path.read_text() for path in folder.glob("[!.]*")}

    def _repository(self, reference: Reference) -> Path:
        return self._root / reference.repository

    def _file(self, reference: Reference, digest: Digest) -> Path:
        return self._repository(reference) / "manifests" / hex_of(digest)

    def _tagged(self, reference: Reference) -> Digest | None:
        path = self._repository(reference) / "tags" / (reference.tag or "")
        return parse_digest(path.read_text()) if path.is_file() else None

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{os.getpid()}-{path.name[:200]}"
        temporary.write_bytes(data)
        temporary.replace(path)


class Killed(BaseException):
    """The process ends here: nothing of ours catches this."""


@dataclass
class Fuse:
    """Counts the instants before and after every operation, and burns at one of them."""

    burns_at: int | None = None
    instants: int = 0
    writes: list[str] = field(default_factory=list)

    def pass_by(self) -> None:
        if self.instants == self.burns_at:
            raise Killed
        self.instants += 1

    def around(self, operation: Callable[[], T], write: str = "") -> T:
        self.pass_by()
        result = operation()
        if write:
            self.writes.append(write)
        self.pass_by()
        return result


@dataclass
class FusedStore:
    """A store that dies when its fuse burns, before or after the effect."""

    inner: Store
    fuse: Fuse

    def read(self, path: str) -> Blob | None:
        return self.fuse.around(lambda: self.inner.read(path))

    def add(self, path: str, data: bytes) -> None:
        self.fuse.around(lambda: self.inner.add(path, data), f"add {path}")

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        return self.fuse.around(
            lambda: self.inner.replace(path, data, expected_etag), f"replace {path}"
        )

    def list(self, prefix: str) -> tuple[str, ...]:
        return self.fuse.around(lambda: self.inner.list(prefix))


@dataclass
class FusedRegistry:
    """A registry that dies when its fuse burns, before or after the effect."""

    inner: Registry
    fuse: Fuse

    def resolve(self, reference: Reference) -> Descriptor | None:
        return self.fuse.around(lambda: self.inner.resolve(reference))

    def manifest(self, reference: Reference) -> Manifest:
        return self.fuse.around(lambda: self.inner.manifest(reference))

    def push(self, layout: Path, target: Reference) -> Digest:
        return self.fuse.around(lambda: self.inner.push(layout, target), f"push {target}")

    def copy(self, source: Reference, target: Reference) -> Digest:
        return self.fuse.around(lambda: self.inner.copy(source, target), f"copy {source}")

    def tag(self, source: Reference, tag: str) -> Digest:
        return self.fuse.around(lambda: self.inner.tag(source, tag), f"tag {tag}")


@dataclass(frozen=True)
class Farm:
    """A store and a registry on a disk, and what was done to them."""

    root: Path
    fuse: Fuse = field(default_factory=Fuse)

    @cached_property
    def images(self) -> FolderRegistry:
        return FolderRegistry(self.root / "registry")

    @cached_property
    def documents(self) -> DirectoryStore:
        return DirectoryStore(self.root / "store")

    @property
    def store(self) -> FusedStore:
        return FusedStore(self.documents, self.fuse)

    @property
    def registry(self) -> FusedRegistry:
        return FusedRegistry(self.images, self.fuse)

    def publish(self, *changes: Change, now: str = NOW) -> Committed | AlreadyCommitted | Rejected:
        return publish(changes, store=self.store, registry=self.registry, place=PLACE, now=now)

    def recover(self) -> tuple[str, ...]:
        return recover(self.store, self.registry, place=PLACE, now=LATER)

    def stage(self, data: bytes) -> Reference:
        where = PLACE.repository("staging/cupy")
        return where.with_digest(self.images.put(where, data))

    def change(self, version: str = "14.2.0", verdict: Verdict = STABLE, **more: Any) -> Change:
        """Return an image that waits in staging, tested and judged."""
        entry, report = reported(version, **more)
        source = self.stage(image(entry.recipe, more.get("image", 1)))
        return Change(entry=admitted(entry, verdict), source=source, evidence=(report,))

    def tags(self, repository: str) -> dict[str, str]:
        return self.images.tags(PLACE.repository(repository))

    def recorded(self, change: Change) -> Entry:
        return read_index(self.documents).at(change.entry)


def image(recipe: str, number: int = 1) -> bytes:
    return canonical_json({"image": number, "recipe": recipe})


def reported(
    version: str,
    cuda: str = "12.9",
    build: int = 1,
    at: str = NOW,
    **more: Any,
) -> tuple[Entry, bytes]:
    cell = f"cupy-{version}-cuda{cuda}-py3.11"
    recipe = hex_of(sha256(f"{cell} {build}".encode()))
    report = canonical_json({"of": recipe, "at": at})
    digest = sha256(image(recipe, more.get("image", 1)))
    result = SuiteResult(
        suite="contents", verdict="pass", evidence=sha256(report), at=at, probe="0" * 64
    )
    entry = Entry(
        id=entry_id(cell, recipe),
        cell=cell,
        digest=digest,
        platform_digest=more.get("platform_digest", digest),
        repository="staging/cupy",
        platforms=("linux/amd64",),
        size=1,
        stack=Stack(framework="cupy", version=version, cuda=cuda, python="3.11"),
        driver=Driver(min="525.60.13", rule="family"),
        tests=(result,),
        base="debian-12@1",
        recipe=recipe,
        lock=sha256(b"lock"),
        created=NOW,
        status=Status(state="unpublished"),
    )
    return entry, report


def loaded(root: Path, path: str) -> Any:
    return json.loads((root / path).read_bytes())


def check(farm: Farm, *, finished: bool = True) -> list[dict[str, Any]]:
    """Walk the whole store with nothing of ours, and return every entry that it holds."""
    root = farm.root / "store"
    generations = sorted((root / "v1/gen").glob("*.json"))
    parent = None
    entries: list[dict[str, Any]] = []
    generation: dict[str, Any] = {"tags": {}}
    for number, path in enumerate(generations, start=1):
        assert path.name == f"{number:020d}.json"
        generation = json.loads(path.read_bytes())
        assert (generation["number"], generation.get("parent")) == (number, parent)
        parent = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        entries = checked_entries(root, generation)
        assert set(generation["tags"].values()) <= {entry["digest"] for entry in entries}
    if finished and generations:
        head = loaded(root, "v1/head.json")
        assert (head["gen"], head["sha256"]) == (len(generations), parent)
        check_projection(farm, generation["tags"], entries)
    return entries


def checked_entries(root: Path, generation: dict[str, Any]) -> list[dict[str, Any]]:
    entries = []
    for key, link in generation["shards"].items():
        data = (root / f"v1/shard/{link['sha256'][7:]}.json").read_bytes()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == link["sha256"]
        shard = json.loads(data)
        assert shard["key"] == key
        entries += shard["entries"]
    for entry in entries:
        for test in entry["tests"]:
            report = (root / f"v1/evidence/{test['evidence'][7:]}.json").read_bytes()
            assert f"sha256:{hashlib.sha256(report).hexdigest()}" == test["evidence"]
    return entries


def check_projection(farm: Farm, tags: dict[str, str], entries: list[dict[str, Any]]) -> None:
    wanted = dict(tags)
    for entry in entries:
        if entry["status"]["state"] in {"active", "candidate"}:
            wanted |= {f"{entry['repository']}:{tag}": entry["digest"] for tag in entry["tags"]}
    for name, digest in wanted.items():
        repository, _, tag = name.rpartition(":")
        assert farm.tags(repository)[tag] == digest, name
    whole = loaded(farm.root / "store", "v1/index.json")
    assert whole["tags"] == tags
    assert sorted(whole["entries"], key=str) == sorted(entries, key=str)
