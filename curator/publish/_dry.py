"""A rehearsal: the whole publish on ports that note each write instead of doing it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curator.errors import ConflictError, RefusedError
from curator.oci import Descriptor, Digest, Manifest, Reference, sha256
from curator.ports import Blob

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from curator.ports import Registry, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Ports that read what is there and write nothing; `writes` is what they would have written."""

    store: Store
    registry: Registry
    writes: list[str]

    @classmethod
    def of(cls, store: Store, registry: Registry) -> Rehearsal:
        """Stand before these ports."""
        writes: list[str] = []
        return cls(store=_Store(store, writes), registry=_Registry(registry, writes), writes=writes)


@dataclass
class _Store:
    inner: Store
    writes: list[str]
    written: dict[str, bytes] = field(default_factory=dict)

    def read(self, path: str) -> Blob | None:
        if path in self.written:
            data = self.written[path]
            return Blob(data=data, etag=sha256(data))
        return self.inner.read(path)

    def add(self, path: str, data: bytes) -> None:
        found = self.read(path)
        if found is not None:
            if found.data != data:
                raise ConflictError(f"{path} stands there")
            return
        self.written[path] = data
        self.writes.append(f"add {path} ({len(data)} bytes)")

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        found = self.read(path)
        if (found.etag if found else None) != expected_etag:
            raise ConflictError(f"{path} changed")
        self.written[path] = data
        self.writes.append(f"replace {path} ({len(data)} bytes)")
        return sha256(data)

    def list(self, prefix: str) -> tuple[str, ...]:
        own = {path for path in self.written if path.startswith(prefix)}
        return tuple(sorted({*self.inner.list(prefix), *own}))

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        del name
        yield


@dataclass
class _Registry:
    inner: Registry
    writes: list[str]
    written: dict[Reference, Manifest] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)

    def resolve(self, reference: Reference) -> Descriptor | None:
        known = self.written.get(reference)
        return known.descriptor if known else self.inner.resolve(reference)

    def manifest(self, reference: Reference) -> Manifest:
        return self.written.get(reference) or self.inner.manifest(reference)

    def push(self, layout: Path, target: Reference) -> Digest:
        raise RefusedError(f"a rehearsal pushes nothing: {layout} to {target}")

    def copy(self, source: Reference, target: Reference) -> Digest:
        manifest = self.inner.manifest(source)
        self.written[target.with_digest(manifest.digest)] = manifest
        self.writes.append(f"copy {source} to {target}")
        return manifest.digest

    def tag(self, source: Reference, tag: str) -> Digest:
        manifest = self.manifest(source)
        self.written[source.with_tag(tag)] = manifest
        self.writes.append(f"tag {source.with_tag(tag)} -> {manifest.digest}")
        return manifest.digest

    def put(
        self,
        repository: Reference,
        manifest: Manifest,
        blobs: Sequence[bytes] = (),
        tag: str | None = None,
    ) -> Digest:
        self.blobs |= {sha256(data): data for data in blobs}
        where = repository.with_tag(tag) if tag else repository.with_digest(manifest.digest)
        self.written[where] = manifest
        self.written[repository.with_digest(manifest.digest)] = manifest
        self.writes.append(f"put {where}")
        return manifest.digest

    def tags(self, repository: Reference) -> tuple[str, ...]:
        own = {
            reference.tag
            for reference in self.written
            if reference.tag and reference.with_tag("x") == repository.with_tag("x")
        }
        return tuple(sorted({*self.inner.tags(repository), *own}))

    def has(self, repository: Reference, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.blobs or self.inner.has(repository, descriptor)

    def blob(self, repository: Reference, descriptor: Descriptor) -> bytes:
        known = self.blobs.get(descriptor.digest)
        return known if known is not None else self.inner.blob(repository, descriptor)
