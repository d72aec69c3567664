"""A client of OCI registries that moves as few bytes as promotion needs, and checks all of them.

- Bytes are never parsed and written again: a digest is the hash of what was read or is sent.
- What was written is read back; a digest that differs is an error that is never retried.
- Order of a push: blobs, child manifests by digest, then one PUT on the tag. Nobody sees a tag on
  anything but the whole image.
- Authorization stays on its host. Plain HTTP is for loopback registries only, as with docker.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.errors import IntegrityError, RefusedError, TemporaryError
from curator.oci import (
    INDEX,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Manifest,
    Reference,
    hex_of,
    parse_digest,
)
from curator.registry._transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.registry._transport import Answer

PARALLEL_UPLOADS = 3
MAX_PAGES = 1000
BLOB_WAITS_S = (0.05, 0.2, 0.5)
MAX_BLOB_BYTES = 4 * 1024 * 1024
ACCEPT = {"Accept": ", ".join(sorted(MANIFEST_TYPES))}


class HttpRegistry:
    """`curator.ports.Registry` over HTTP; safe to use from several threads.

    `docker_config` is the directory of docker's config.json, with its logins.
    """

    def __init__(self, docker_config: Path | None = None, *, deadline_s: float = 300.0) -> None:
        config = docker_config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        self._transport = Transport(config, deadline_s=deadline_s)

    def resolve(self, reference: Reference) -> Descriptor | None:
        """Return what a tag or digest points at now, or None."""
        answer = self._manifest_request("HEAD", reference)
        if answer.status == 404:  # noqa: PLR2004
            return None
        self._expect(answer, 200, f"looking up {reference}")
        digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:
            return self.manifest(reference).descriptor
        length = answer.headers.get("Content-Length", "0")
        told = {
            "mediaType": answer.headers.get("Content-Type", ""),
            "digest": digest,
            "size": int(length) if length.isdecimal() else None,
        }
        found = Descriptor.from_json(told)
        if reference.digest and found.digest != reference.digest:
            raise IntegrityError(f"{reference}: the registry answers with {found.digest}")
        return found

    def manifest(self, reference: Reference) -> Manifest:
        """Return a manifest whose bytes were checked against its digest.

        Raises:
            RefusedError: there is no such manifest.
            IntegrityError: the bytes are others than the digest says.
        """
        answer = self._manifest_request("GET", reference)
        if answer.status == 404:  # noqa: PLR2004
            raise RefusedError(f"{reference} is not in the registry")
        self._expect(answer, 200, f"reading {reference}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        manifest = Manifest(data=answer.data, media_type=media_type)
        told = reference.digest or answer.headers.get("Docker-Content-Digest")
        if told and told != manifest.digest:
            raise IntegrityError(f"{reference}: expected {told}, the bytes are {manifest.digest}")
        if media_type not in MANIFEST_TYPES:
            raise IntegrityError(f"{reference} is no image but {media_type!r}")
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
        self._expect(answer, 200, f"reading {descriptor.digest} of {repository}")
        if Descriptor.of(answer.data, descriptor.media_type) != descriptor:
            raise IntegrityError(f"{descriptor.digest} of {repository} has other bytes")
        return answer.data

    def push(self, layout: Path, target: Reference) -> Digest:
        """Upload a layout's one image and tag it, once, when everything else is there.

        Raises:
            IntegrityError: the layout is not what its index says.
        """
        listed = _layout_index(layout)
        manifests = list(_manifests(layout, listed))
        blobs = dict.fromkeys(blob for manifest in manifests for blob in manifest.blobs)
        with ThreadPoolExecutor(PARALLEL_UPLOADS) as pool:
            for future in [pool.submit(self._upload, layout, target, blob) for blob in blobs]:
                future.result()
        *children, top = manifests
        for child in children:
            self._put(child, target.with_digest(child.digest))
        return self._put(top, target)

    def copy(self, source: Reference, target: Reference) -> Digest:
        """Make the image at `source`'s digest available in `target`'s repository, untagged."""
        top = self.manifest(source)
        children = [self.manifest(source.with_digest(child.digest)) for child in top.children]
        manifests = [*children, top]
        for blob in dict.fromkeys(blob for manifest in manifests for blob in manifest.blobs):
            self._mount(source, target, blob)
        for manifest in manifests:
            self._put(manifest, target.with_digest(manifest.digest))
        return top.digest

    def tag(self, source: Reference, tag: str) -> Digest:
        """Point a tag of the same repository at `source`'s digest."""
        return self._put(self.manifest(source), source.with_tag(tag))

    def tags(self, repository: Reference) -> tuple[str, ...]:
        """Return a repository's tags, sorted; none if there is no such repository."""
        path = f"/v2/{repository.repository}/tags/list"
        found: set[str] = set()
        for _ in range(MAX_PAGES):
            answer = self._transport.request("GET", repository, path, limit=MAX_MANIFEST_BYTES)
            if answer.status == 404:  # noqa: PLR2004
                break
            self._expect(answer, 200, f"listing {repository}")
            found.update(_tags(answer, repository))
            following = self._transport.next_page(repository, answer)
            if following is None or following == path:
                break
            path = following
        return tuple(sorted(found))

    def _manifest_request(self, method: str, reference: Reference) -> Answer:
        what = reference.digest or reference.tag or "latest"
        path = f"/v2/{reference.repository}/manifests/{what}"
        return self._transport.request(
            method, reference, path, headers=ACCEPT, limit=MAX_MANIFEST_BYTES
        )

    def _put(self, manifest: Manifest, target: Reference) -> Digest:
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
            if not _lacks_a_blob(answer):
                break
            # Another writer is linking the same blob: distribution empties a link to write it.
            time.sleep(wait_s)
            answer = attempt()
        self._expect(answer, 201, f"writing {target}")
        if target.digest and answer.headers.get("Docker-Content-Digest") == target.digest:
            return manifest.digest
        found = self.resolve(target)
        if found is None or found.digest != manifest.digest:
            now = found.digest if found else "nothing"
            raise IntegrityError(f"{target}: wrote {manifest.digest}, read back {now}")
        return manifest.digest

    def _has_blob(self, repository: Reference, blob: Descriptor) -> bool:
        path = f"/v2/{repository.repository}/blobs/{blob.digest}"
        answer = self._transport.request("HEAD", repository, path, push=True, follow=True)
        if answer.status == 404:  # noqa: PLR2004
            return False
        self._expect(answer, 200, f"looking for {blob.digest} in {repository}")
        return True

    def _upload(self, layout: Path, target: Reference, blob: Descriptor) -> None:
        path = _blob_path(layout, blob.digest)
        _check_blob(path, blob)
        if self._has_blob(target, blob):
            return

        def attempt() -> Answer:
            location = self._open_upload(target, f"/v2/{target.repository}/blobs/uploads/")
            with path.open("rb") as file:
                return self._transport.upload(
                    target, location, file, size=blob.size, query={"digest": blob.digest}
                )

        answer = self._transport.repeat(
            attempt, f"uploading {blob.digest} to {target}", target.registry
        )
        self._expect(answer, 201, f"uploading {blob.digest} to {target}")

    def _open_upload(self, target: Reference, path: str) -> str:
        answer = self._transport.request("POST", target, path, push=True)
        self._expect(answer, 202, f"starting an upload to {target}")
        return self._transport.location(target, answer)

    def _mount(self, source: Reference, target: Reference, blob: Descriptor) -> None:
        """Give a blob to another repository of the same registry; copy it where that fails."""
        path = f"/v2/{target.repository}/blobs/uploads/"
        if source.registry == target.registry:
            query = {"mount": blob.digest, "from": source.repository}
            answer = self._transport.request(
                "POST", target, path, query=query, push=True, also=source.repository
            )
            if answer.status == 201:  # noqa: PLR2004
                return
            self._expect(answer, 202, f"mounting {blob.digest} into {target}")
            with contextlib.suppress(TemporaryError):
                self._transport.request(
                    "DELETE", target, self._transport.location(target, answer), push=True
                )
        if not self._has_blob(target, blob):
            self._stream(source, target, blob)

    def _stream(self, source: Reference, target: Reference, blob: Descriptor) -> None:
        """Copy a blob through this machine without keeping it."""

        def attempt() -> Answer:
            location = self._open_upload(target, f"/v2/{target.repository}/blobs/uploads/")
            path = f"/v2/{source.repository}/blobs/{blob.digest}"
            with self._transport.stream(source, path) as body:
                return self._transport.upload(
                    target, location, body, size=blob.size, query={"digest": blob.digest}
                )

        answer = self._transport.repeat(
            attempt, f"copying {blob.digest} to {target}", target.registry
        )
        self._expect(answer, 201, f"copying {blob.digest} to {target}")

    def _expect(self, answer: Answer, status: int, doing: str) -> None:
        """Translate an unexpected answer.

        Raises:
            RefusedError: the registry would answer the same again.
            TemporaryError: it may not.
        """
        if answer.status == status:
            return
        told = f"{doing}: {answer.status} {_told(answer)}".rstrip()
        if wait := answer.headers.get("Retry-After"):
            told += (
                f" (asks to wait {wait[:40]} s)" if wait.isdecimal() else f" (until {wait[:40]})"
            )
        if answer.status in {401, 403}:
            raise RefusedError(f"{told}: run `docker login {answer.registry}` with push rights")
        if answer.status == 429 or answer.status >= 500:  # noqa: PLR2004
            raise TemporaryError(told)
        raise RefusedError(told)


def _lacks_a_blob(answer: Answer) -> bool:
    return answer.status in {400, 404} and b"BLOB_UNKNOWN" in answer.data


def _tags(answer: Answer, repository: Reference) -> list[str]:
    try:
        value = json.loads(answer.data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"listing {repository}: no JSON") from error
    tags = (value.get("tags") or []) if isinstance(value, dict) else None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise IntegrityError(f"listing {repository}: no list of tags")
    return tags


def _told(answer: Answer) -> str:
    """Return a registry's own words, short and on one line."""
    words = _words(answer)
    told = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:300]
    # distribution's filesystem driver passes the system's error on as a number.
    return f"{told} (no space left on its disk)" if f"'Err': {errno.ENOSPC}" in words else told


def _words(answer: Answer) -> str:
    try:
        errors = json.loads(answer.data)["errors"]
        words = [
            f"{item.get('code')} {item.get('message')} {item.get('detail') or ''}"
            for item in errors
        ]
        text = "; ".join(words)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = answer.data.decode(errors="replace")
    return text


def _layout_index(layout: Path) -> Descriptor:
    try:
        manifests: list[dict[str, Any]] = json.loads((layout / "index.json").read_text())[
            "manifests"
        ]
        (listed,) = manifests
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{layout} is no OCI layout of one image: {error}") from error
    if not isinstance(listed, dict):
        raise IntegrityError(f"{layout} is no OCI layout of one image")
    return Descriptor.from_json(listed)


def _manifests(layout: Path, listed: Descriptor) -> Iterator[Manifest]:
    """Give a layout's manifests, children first."""
    path = _blob_path(layout, listed.digest)
    _check_blob(path, listed)
    manifest = Manifest(data=path.read_bytes(), media_type=listed.media_type)
    if listed.media_type == INDEX:
        for child in manifest.children:
            yield from _manifests(layout, child)
    yield manifest


def _blob_path(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / hex_of(parse_digest(digest))


def _check_blob(path: Path, descriptor: Descriptor) -> None:
    """Hold a file against its descriptor."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path} is missing from the layout") from error
    if (digest, size) != (descriptor.digest, descriptor.size):
        raise IntegrityError(
            f"{path} has {size} bytes of {digest}, not what the layout's index says"
        )
