"""A farm on a disk: a real store, a registry of files, and a fuse that kills at any instant.

`check` reads what was published with the standard library alone, so that a fault of ours in
reading cannot hide one in writing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from curator.errors import RefusedError
from curator.index import Driver, Entry, Stack, Status, SuiteResult, entry_id, read_index
from curator.oci import (
    CONFIG,
    MANIFEST,
    Descriptor,
    Manifest,
    canonical_json,
    hex_of,
    parse_digest,
    sha256,
)
from curator.policy import admitted
from curator.publish import (
    AlreadyCommitted,
    Change,
    Committed,
    Rejected,
    Target,
    publish,
    recover,
)
from curator.settings import Place
from curator.store import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from curator.index import Outcome
    from curator.oci import Digest, Reference
    from curator.ports import Blob, Registry, Store
    from curator.sign import Signer

T = TypeVar("T")
NOW = "2026-11-23T12:00:00Z"
LATER = "2026-11-24T12:00:00Z"
PLACE = Place(registry="registry.example", prefix="dl")
# What a test found of the contents, and of the GPU: it opens a channel, or none.
STABLE: tuple[Outcome, Outcome] = ("pass", "pass")
CANDIDATE: tuple[Outcome, Outcome] = ("pass", "not-run")
REFUSED: tuple[Outcome, Outcome] = ("fail", "not-run")


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
        return self.tag(target.with_digest(self._put(target, data)), target.tag)

    def copy(self, source: Reference, target: Reference) -> Digest:
        manifest = self.manifest(source)
        for blob in manifest.blobs if b'"config"' in manifest.data else ():
            self._write(
                self._blob(target, blob.digest), self._blob(source, blob.digest).read_bytes()
            )
        return self._put(target, manifest.data)

    def tag(self, source: Reference, tag: str) -> Digest:
        digest = self.manifest(source).digest
        self._write(self._repository(source) / "tags" / tag, digest.encode())
        return digest

    def stage(self, where: Reference, data: bytes, *blobs: bytes) -> Digest:
        for blob in blobs:
            self._write(self._blob(where, sha256(blob)), blob)
        return self._put(where, data)

    def _put(self, target: Reference, data: bytes) -> Digest:
        self._write(self._file(target, sha256(data)), data)
        return sha256(data)

    def put(
        self,
        repository: Reference,
        manifest: Manifest,
        blobs: Sequence[bytes] = (),
        tag: str | None = None,
    ) -> Digest:
        for data in blobs:
            self._write(self._blob(repository, sha256(data)), data)
        digest = self._put(repository, manifest.data)
        return self.tag(repository.with_digest(digest), tag) if tag else digest

    def blob(self, repository: Reference, descriptor: Descriptor) -> bytes:
        return self._blob(repository, descriptor.digest).read_bytes()

    def has(self, repository: Reference, descriptor: Descriptor) -> bool:
        return self._blob(repository, descriptor.digest).is_file()

    def tags(self, repository: Reference) -> tuple[str, ...]:
        return tuple(sorted(self.tagged(repository)))

    def tagged(self, repository: Reference) -> dict[str, str]:
        folder = self._repository(repository) / "tags"
        return {path.name: path.read_text() for path in folder.glob("[!.]*")}

    def _repository(self, reference: Reference) -> Path:
        return self._root / reference.repository

    def _blob(self, reference: Reference, digest: Digest) -> Path:
        return self._repository(reference) / "blobs" / hex_of(digest)

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

    def turn(self, name: str) -> AbstractContextManager[None]:
        return self.inner.turn(name)


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

    def put(
        self,
        repository: Reference,
        manifest: Manifest,
        blobs: Sequence[bytes] = (),
        tag: str | None = None,
    ) -> Digest:
        return self.fuse.around(
            lambda: self.inner.put(repository, manifest, blobs, tag), f"put {tag}"
        )

    def tags(self, repository: Reference) -> tuple[str, ...]:
        return self.fuse.around(lambda: self.inner.tags(repository))

    def has(self, repository: Reference, descriptor: Descriptor) -> bool:
        return self.fuse.around(lambda: self.inner.has(repository, descriptor))

    def blob(self, repository: Reference, descriptor: Descriptor) -> bytes:
        return self.fuse.around(lambda: self.inner.blob(repository, descriptor))


@dataclass(frozen=True)
class Farm:
    """A store and a registry on a disk, and what was done to them."""

    root: Path
    fuse: Fuse = field(default_factory=Fuse)
    signer: Signer | None = None

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

    def target(self, now: str = NOW, *, store: Store | None = None) -> Target:
        return Target(
            store=store or self.store,
            registry=self.registry,
            place=PLACE,
            now=now,
            signer=self.signer,
        )

    def publish(
        self, *changes: Change, now: str = NOW, expect: Mapping[str, Digest | None] | None = None
    ) -> Committed | AlreadyCommitted | Rejected:
        return publish(changes, self.target(now), expect=expect)

    def recover(self, now: str = LATER) -> tuple[str, ...]:
        return recover(self.target(now))

    def stage(self, data: bytes, *blobs: bytes) -> Reference:
        where = PLACE.repository("staging/cupy")
        return where.with_digest(self.images.stage(where, data, *blobs))

    def change(
        self, version: str = "14.2.0", verdict: tuple[Outcome, Outcome] = STABLE, **more: Any
    ) -> Change:
        """Return an image that waits in staging, tested and judged."""
        entry, report = reported(version, verdict=verdict, **more)
        number = more.get("image", 1)
        source = self.stage(image(entry.recipe, number), config(entry.recipe, number))
        return Change(entry=admitted(entry), source=source, evidence=(report,))

    def resolve(self, name: str) -> Digest | None:
        """Return where `repository:tag` points in this farm's registry."""
        repository, _, tag = name.rpartition(":")
        found = self.images.resolve(PLACE.repository(repository).with_tag(tag))
        return found.digest if found else None

    def tags(self, repository: str) -> dict[str, str]:
        return self.images.tagged(PLACE.repository(repository))

    def recorded(self, change: Change) -> Entry:
        return read_index(self.documents).at(change.entry)


def config(recipe: str, number: int = 1) -> bytes:
    return canonical_json({"image": number, "recipe": recipe})


def image(recipe: str, number: int = 1) -> bytes:
    """Return the manifest of an image that is a configuration and nothing else."""
    described = Descriptor.of(config(recipe, number), CONFIG).to_json()
    return canonical_json({"schemaVersion": 2, "config": described, "layers": []})


def reported(
    version: str,
    cuda: str = "12.9",
    build: int = 1,
    at: str = NOW,
    **more: Any,
) -> tuple[Entry, bytes]:
    cell = f"cupy-{version}-cuda{cuda}-py3.11"
    recipe = hex_of(sha256(f"{cell} {build}".encode()))
    contents, gpu = more.get("verdict", CANDIDATE)
    sm = more.get("sm", "9.0")
    report = canonical_json({"of": recipe, "at": at, "found": [contents, gpu, sm]})
    digest = sha256(image(recipe, more.get("image", 1)))
    told: dict[str, Any] = {"evidence": sha256(report), "at": at, "probe": "0" * 64}
    tests = (
        SuiteResult(suite="contents", verdict=contents, sm=sm, driver="580.1", **told),
        SuiteResult(suite="gpu", verdict=gpu, sm=sm, driver="580.1", **told),
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
        tests=tests,
        base="debian-12@1",
        recipe=recipe,
        lock=sha256(b"lock"),
        created=NOW,
        status=Status(state="unpublished"),
    )
    return entry, report


@contextmanager
def in_memory() -> Iterator[Path]:
    """Give a directory in memory where there is such: for what asks nothing of a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - named by the system, made for this
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


def loaded(root: Path, path: str) -> Any:
    return json.loads((root / path).read_bytes())


@dataclass
class Walk:
    """The whole chain and the newest state, read with nothing of ours but `Store.read`.

    `wrong` collects what does not fit together; `publishes` says which generations hold an id.
    """

    store: Store
    resolve: Callable[[str], Digest | None]
    wrong: list[str] = field(default_factory=list)
    generations: int = 0
    tip: str | None = None
    publishes: dict[str, list[int]] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    ever: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, farm: Farm, store: Store | None = None) -> Walk:
        return cls(store or farm.documents, farm.resolve).walked()

    def walked(self) -> Walk:
        self._chain()
        return self

    def _read(self, path: str) -> bytes:
        blob = self.store.read(path)
        if blob is None:
            self.wrong.append(f"{path} is missing")
            return b"{}"
        return blob.data

    def _named(self, kind: str, digest: str) -> Any:
        """Read a document that is named by its hash."""
        data = self._read(f"v1/{kind}/{digest[7:]}.json")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self.wrong.append(f"{kind} {digest} has other bytes")
        return json.loads(data)

    def _chain(self) -> None:
        generation: dict[str, Any] = {"groups": {}}
        parent: str | None = None
        for number in itertools.count(1):
            path = f"v1/gen/{number:020d}.json"
            blob = self.store.read(path)
            if blob is None:
                break
            generation = json.loads(blob.data)
            if (generation["number"], generation.get("parent")) != (number, self.tip):
                self.wrong.append(f"{path} does not continue the chain")
            self.tip = f"sha256:{hashlib.sha256(blob.data).hexdigest()}"
            self.generations = number
            self.ever |= {change["digest"] for change in generation["changes"]}
            for publish_id in generation["publishes"]:
                self.publishes.setdefault(publish_id, []).append(number)
            record = self._named("evidence", generation["record"])
            if (record["base"], record.get("parent")) != (number - 1, parent):
                self.wrong.append(f"the record of generation {number} has base {record['base']}")
            parent = generation["record"]
        for name, link in generation["groups"].items():
            self._group(name, link)

    def _group(self, name: str, link: dict[str, Any]) -> None:
        group = self._named("group", link["sha256"])
        parts = group["shards"].values()
        if group["key"] != name or sum(part["entries"] for part in parts) != link["entries"]:
            self.wrong.append(f"group {name} is not what its generation says")
        if self.tags.keys() & group["tags"].keys():
            self.wrong.append(f"group {name} has tags that another one has")
        self.tags |= group["tags"]
        for key, part in group["shards"].items():
            shard = self._named("shard", part["sha256"])
            if (shard["key"], len(shard["entries"])) != (key, part["entries"]):
                self.wrong.append(f"shard {key} is not what its group says")
            self.entries += shard["entries"]
            for test in (test for entry in shard["entries"] for test in entry["tests"]):
                self._named("evidence", test["evidence"])

    def violations(self, *, finished: bool = True) -> list[str]:
        """Return what is wrong; `finished` asks that head, tags and derived files are there too."""
        digests = {entry["digest"] for entry in self.entries}
        wrong = [
            *self.wrong,
            *(f"tag {n} of nothing" for n, d in self.tags.items() if d not in digests),
        ]
        if not (finished and self.generations):
            return wrong
        head = json.loads(self._read("v1/head.json"))
        if (head.get("gen"), head.get("sha256")) != (self.generations, self.tip):
            wrong.append(
                f"the head names {head.get('gen')}, the chain ends with {self.generations}"
            )
        whole = json.loads(self._read("v1/index.json"))
        if whole["generation"] != self.generations:
            wrong.append(f"index.json is of generation {whole['generation']}")
        if whole["entries"] is not None and (
            whole["tags"] != self.tags
            or sorted(whole["entries"], key=str) != sorted(self.entries, key=str)
        ):
            wrong.append("index.json holds something else")
        return [*wrong, *self._projected()]

    def _projected(self) -> Iterator[str]:
        """Yield where the registry is not what the index says."""
        wanted = dict(self.tags)
        for entry in self.entries:
            if entry["status"]["state"] in {"active", "candidate"}:
                wanted |= {f"{entry['repository']}:{tag}": entry["digest"] for tag in entry["tags"]}
        for name, digest in wanted.items():
            found = self.resolve(name)
            if found != digest:
                yield f"{name} is {found}, not {digest}"


def check(farm: Farm, *, finished: bool = True) -> list[dict[str, Any]]:
    """Walk the whole store with nothing of ours, and return every entry that it holds."""
    walk = Walk.of(farm)
    assert walk.violations(finished=finished) == []
    return walk.entries
