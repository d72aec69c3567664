"""A client of OCI registries that moves as few bytes as promotion needs, and checks all of them.

- Bytes are never parsed and written again: a digest is the hash of what was read or is sent.
- What was written is read back; a digest that differs is an error that is never retried.
- Order of a push: blobs, child manifests by digest, then one PUT on the tag. Nobody sees a tag on
  anything but the whole image.
- A promotion costs a mount for each blob and a PUT for each manifest. Manifests that were seen in
  a repository are not read there again.
- Authorization stays on its host. Plain HTTP is for loopback registries only, as with docker.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from curator.errors import IntegrityError, RefusedError
from curator.oci import (
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Manifest,
    Reference,
)
from curator.registry import _blobs, _layout
from curator.registry._answer import (
    CREATED,
    NOT_FOUND,
    OK,
    SUCCESS,
    Answer,
    expect,
    lacks_a_blob,
    number,
)
from curator.registry._manifests import Memory, checked, tree
from curator.registry._transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PARALLEL: Final = 3
MAX_PAGES: Final = 1000
MAX_LISTING_BYTES: Final = 64 * 1024 * 1024
BLOB_WAITS_S: Final = (0.05, 0.2, 0.5)
MAX_BLOB_BYTES: Final = 4 * 1024 * 1024
# The media types of all manifests, those that we do not know too, as servers tell them.
TOLD_TYPES: Final = "application/vnd."
ACCEPT: Final = {"Accept": ", ".join(sorted(MANIFEST_TYPES))}

T = TypeVar("T")


class HttpRegistry:
    """`curator.ports.Registry` over HTTP; safe to use from several threads.

    `docker_config` is the directory of docker's config.json, with its logins. `deadline_s` bounds
    each request with all its attempts; the transfer of a blob gets more for each megabyte.
    """

    def __init__(self, docker_config: Path | None = None, *, deadline_s: float = 300.0) -> None:
        self._transport = Transport(docker_config or _docker_config(), deadline_s=deadline_s)
        self._memory = Memory()

    def resolve(self, reference: Reference) -> Descriptor | None:
        """Return what a tag or digest points at now, or None."""
        answer = self._manifest_request("HEAD", reference)
        if answer.status == NOT_FOUND:
            return None
        expect(answer, OK, f"looking up {reference}")
        told = {
            "mediaType": answer.headers.get("Content-Type", "").partition(";")[0].strip(),
            "digest": answer.headers.get("Docker-Content-Digest"),
            "size": number(answer.headers.get("Content-Length")),
        }
        if not all(told.values()) or not str(told["mediaType"]).startswith(TOLD_TYPES):
            return self.manifest(reference).descriptor  # what is not told is read
        found = Descriptor.from_json(told)
        if reference.digest and found.digest != reference.digest:
            raise IntegrityError(f"{reference}: the registry answers with {found.digest}")
        return found

    def manifest(self, reference: Reference) -> Manifest:
        """Return a manifest whose bytes were checked against its digest.

        Raises:
            RefusedError: there is no such manifest.
            IntegrityError: the bytes are others than the digest says, or have two meanings.
        """
        answer = self._manifest_request("GET", reference)
        if answer.status == NOT_FOUND:
            raise RefusedError(f"{reference} is not in the registry")
        expect(answer, OK, f"reading {reference}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        manifest = Manifest(data=answer.data, media_type=media_type)
        named = answer.headers.get("Docker-Content-Digest")
        for told in (reference.digest, named):
            if told and told != manifest.digest:
                raise IntegrityError(
                    f"{reference}: expected {told[:100]}, the bytes are {manifest.digest}"
                )
        self._memory.keep(reference, checked(manifest, str(reference)))
        return manifest

    def blob(self, repository: Reference, descriptor: Descriptor) -> bytes:
        """Return a small blob, such as an image's config.

        Raises:
            IntegrityError: it is too big, or its bytes are others than its digest says.
        """
        if descriptor.size > MAX_BLOB_BYTES:
            raise IntegrityError(f"{descriptor.digest} has {descriptor.size} bytes, too many here")
        path = f"/v2/{repository.repository}/blobs/{descriptor.digest}"
        answer = self._transport.request(
            "GET", repository, path, limit=descriptor.size, follow=True
        )
        expect(answer, OK, f"reading {descriptor.digest} of {repository}")
        if Descriptor.of(answer.data, descriptor.media_type) != descriptor:
            raise IntegrityError(f"{descriptor.digest} of {repository} has other bytes")
        return answer.data

    def has(self, repository: Reference, descriptor: Descriptor) -> bool:
        """Say whether a repository has a blob."""
        return _blobs.has(self._transport, repository, descriptor)

    def push(self, layout: Path, target: Reference) -> Digest:
        """Upload a layout's one image and tag it, once, when everything else is there.

        Raises:
            IntegrityError: the layout is not what its index says.
        """
        manifests = _layout.manifests(layout)

        def upload(blob: Descriptor) -> None:
            path = _layout.blob_path(layout, blob)
            if not _blobs.lies_in(self._transport, target, blob):
                _blobs.send(self._transport, target, blob, _blobs.from_file(path))

        _each(upload, _blobs_of(manifests))
        *children, top = manifests
        for child in children:
            digest = self._write(child, target.with_digest(child.digest))
            # A registry whose disk was full says that it has a manifest of which it has no byte.
            self._read_back(child, target.with_digest(digest))
        return self._write(top, target)

    def copy(self, source: Reference, target: Reference) -> Digest:
        """Make the image at `source`'s digest available in `target`'s repository, untagged.

        Within a registry blobs are mounted. Between two they stream through this machine.

        Raises:
            IntegrityError: bytes are others than their digest says; nothing wrong was committed.
            RefusedError: there is no such image.
        """
        manifests = tree(
            self._known(source),
            lambda child: self._known(source.with_digest(child.digest)),
            str(source),
        )
        top = manifests[-1]
        if (source.registry, source.repository) == (target.registry, target.repository):
            return top.digest

        def bring(blob: Descriptor) -> None:
            near = source.registry == target.registry
            if near and _blobs.mount(self._transport, source, target, blob):
                return
            if not _blobs.lies_in(self._transport, target, blob):
                origin = _blobs.from_registry(self._transport, source, blob)
                _blobs.send(self._transport, target, blob, origin)

        _each(bring, _blobs_of(manifests))
        for manifest in manifests:
            self._write(manifest, target.with_digest(manifest.digest))
        return top.digest

    def tag(self, source: Reference, tag: str) -> Digest:
        """Point a tag of the same repository at `source`'s digest."""
        return self._write(self._known(source), source.with_tag(tag))

    def put(
        self,
        repository: Reference,
        manifest: Manifest,
        blobs: Sequence[bytes] = (),
        tag: str | None = None,
    ) -> Digest:
        """Upload small blobs and the manifest that names them, by its digest or under a tag.

        Raises:
            IntegrityError: the manifest has two meanings, or does not name a blob.
        """
        checked(manifest, f"what is put into {repository}")
        named = {blob.digest: blob for blob in manifest.blobs}
        for data in blobs:
            blob = named.get(Descriptor.of(data, "").digest)
            if blob is None or blob.size != len(data):
                raise IntegrityError(f"{manifest.digest} names no blob of these {len(data)} bytes")
            if not _blobs.lies_in(self._transport, repository, blob):
                _blobs.send(self._transport, repository, blob, _blobs.from_bytes(data))
        if tag is not None:
            return self._write(manifest, repository.with_tag(tag))
        return self._write(manifest, repository.with_digest(manifest.digest))

    def tags(self, repository: Reference) -> tuple[str, ...]:
        """Return a repository's tags, sorted; none if there is no such repository.

        Raises:
            IntegrityError: the listing has no end, or leads elsewhere.
        """
        first = path = f"/v2/{repository.repository}/tags/list"
        found: set[str] = set()
        seen: set[str] = set()
        left = MAX_LISTING_BYTES
        while len(seen) < MAX_PAGES and path not in seen and urlsplit(path).path == first:
            seen.add(path)
            answer = self._transport.request("GET", repository, path, limit=MAX_MANIFEST_BYTES)
            if answer.status == NOT_FOUND:
                return tuple(sorted(found))
            expect(answer, OK, f"listing {repository}")
            found.update(_tags(answer, repository))
            left -= len(answer.data)
            following = self._transport.next_page(repository, path, answer)
            if following is None:
                return tuple(sorted(found))
            if left < 0:
                break
            path = following
        raise IntegrityError(
            f"listing {repository}: after {len(seen)} pages it goes on at {path[:200]}"
        )

    def _known(self, reference: Reference) -> Manifest:
        """Return the manifest at a digest, from memory if it was seen there."""
        return (reference.digest and self._memory.get(reference)) or self.manifest(reference)

    def _manifest_request(self, method: str, reference: Reference) -> Answer:
        what = reference.digest or reference.tag or "latest"
        path = f"/v2/{reference.repository}/manifests/{what}"
        return self._transport.request(
            method, reference, path, headers=ACCEPT, limit=MAX_MANIFEST_BYTES
        )

    def _write(self, manifest: Manifest, target: Reference) -> Digest:
        """Write a manifest and read its digest back: a tag's by asking, a digest's as answered."""
        what = target.digest or target.tag
        if what is None:
            raise ValueError(f"{target} names neither a tag nor a digest to write")
        path = f"/v2/{target.repository}/manifests/{what}"
        headers = {"Content-Type": manifest.media_type}

        def attempt() -> Answer:
            return self._transport.request(
                "PUT", target, path, headers=headers, body=manifest.data, push=True
            )

        answer = attempt()
        for wait_s in BLOB_WAITS_S:
            if not lacks_a_blob(answer):
                break
            # Another writer is linking the same blob: distribution empties a link to write it.
            time.sleep(wait_s)
            answer = attempt()
        expect(answer, SUCCESS, f"writing {target}")
        named = answer.headers.get("Docker-Content-Digest")
        if answer.status != CREATED or target.digest is None or named != target.digest:
            self._read_back(manifest, target)
        self._memory.keep(target, manifest)
        return manifest.digest

    def _read_back(self, manifest: Manifest, target: Reference) -> None:
        found = self.resolve(target)
        if found is None or found.digest != manifest.digest:
            now = found.digest if found else "nothing"
            raise IntegrityError(f"{target}: wrote {manifest.digest}, read back {now}")


def _docker_config() -> Path | None:
    """Return where docker keeps its logins, None where this user can have none."""
    if chosen := os.environ.get("DOCKER_CONFIG"):
        return Path(chosen)
    try:
        return Path.home() / ".docker"
    except RuntimeError:  # a user without an entry in passwd, as in containers
        return None


def _each(do: Callable[[T], None], items: Iterable[T]) -> None:
    """Do something for each of several things, some at a time; what fails ends it."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        try:
            for future in [pool.submit(do, item) for item in items]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _blobs_of(manifests: Iterable[Manifest]) -> list[Descriptor]:
    """Return the blobs of all manifests, each once."""
    found = {blob.digest: blob for manifest in manifests for blob in manifest.blobs}
    return list(found.values())


def _tags(answer: Answer, repository: Reference) -> list[str]:
    try:
        value = json.loads(answer.data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"listing {repository}: no JSON") from error
    tags = (value.get("tags") or []) if isinstance(value, dict) else None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise IntegrityError(f"listing {repository}: no list of tags")
    return tags
