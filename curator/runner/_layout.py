"""Images in an OCI image layout, which is a directory or an uncompressed tar archive of one.

- An image is found by its digest alone: nothing that the layout's lists say of it is believed.
- No byte is handed out before all bytes of its blob had the digest and size that were promised.

Source: OCI image specification, image-layout.md, image-index.md, manifest.md and config.md
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curator.errors import Diagnostic, InputError, IntegrityError
from curator.oci import INDEX, MANIFEST, MAX_MANIFEST_BYTES, Descriptor, Manifest, hex_of
from curator.runner._streams import CHUNK, Guarded, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.oci import Digest, Platform

VERSION = "1.0.0"
MAX_DEPTH = 4
MAX_FILES = 100_000
REFERENCE_TYPE = "vnd.docker.reference.type"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Settings(_Model):
    """How an image wants to be run; what is not said is None."""

    env: tuple[str, ...] | None = Field(None, alias="Env")
    directory: str | None = Field(None, alias="WorkingDir")
    user: str | None = Field(None, alias="User")


class _Root(_Model):
    diff_ids: tuple[str, ...]


class _Config(_Model):
    os: str
    architecture: str
    config: Settings | None = None
    rootfs: _Root


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer's blob, and the digest of what it decompresses to."""

    blob: Descriptor
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What running an image takes: its layers, the lowest first, and its settings."""

    layers: tuple[Layer, ...]
    settings: Settings


class AbsentError(Exception):
    """The layout has no such image for this platform; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Layout:
    """An open layout; `files` gives the place of each file by its name."""

    path: Path
    archive: tarfile.TarFile | None
    members: dict[str, tarfile.TarInfo]

    def image(self, digest: Digest, platform: Platform) -> Image:
        """Return an image by the digest of its manifest, or of an index that lists it.

        Raises:
            AbsentError: it is not there, or not for this platform.
            IntegrityError: it is there, with other bytes than promised.
        """
        if not self._has(_place(digest)):
            raise AbsentError(f"{digest} is not in {self.path}")
        manifest = self._manifest(digest, platform, MAX_DEPTH)
        described, *blobs = manifest.blobs
        config = self._config(described)
        if (config.os, config.architecture) != (platform.os, platform.architecture):
            found = f"{config.os}/{config.architecture}"
            raise AbsentError(f"{digest} is an image for {found}, and this is {platform}")
        if len(config.rootfs.diff_ids) != len(blobs):
            raise IntegrityError(f"image {manifest.digest}: its config counts other layers")
        pairs = zip(blobs, config.rootfs.diff_ids, strict=True)
        return Image(
            layers=tuple(Layer(blob=blob, diff_id=diff_id) for blob, diff_id in pairs),
            settings=config.config or Settings.model_validate({}),
        )

    @contextlib.contextmanager
    def blob(self, described: Descriptor) -> Iterator[IO[bytes]]:
        """Give a blob's bytes from the beginning, having read and checked all of them once.

        Raises:
            IntegrityError: it is missing, or has another digest or size.
        """
        with self._whole(described.digest) as source:
            seen, size = hashlib.sha256(), 0
            while (chunk := source.read(CHUNK)) and size <= described.size:
                seen.update(chunk)
                size += len(chunk)
            if (size, seen.hexdigest()) != (described.size, hex_of(described.digest)):
                raise IntegrityError(f"{self.path}: the bytes of {described.digest} are others")
            source.seek(0)
            yield source

    @contextlib.contextmanager
    def _whole(self, digest: Digest) -> Iterator[IO[bytes]]:
        source = self._open(_place(digest))
        if source is None:
            raise IntegrityError(f"{self.path}: the blob {digest} is missing")
        with source, reading(f"{self.path}: {digest}"):
            yield source

    def _has(self, name: str) -> bool:
        return name in self.members if self.archive else (self.path / name).is_file()

    def _open(self, name: str) -> IO[bytes] | None:
        if self.archive is not None:
            member = self.members.get(name)
            return self.archive.extractfile(member) if member is not None else None
        try:
            return (self.path / name).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            return None

    def _document(self, digest: Digest) -> bytes:
        """Return a small blob; its size is not known beforehand."""
        with self._whole(digest) as source:
            data = source.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise IntegrityError(f"{self.path}: {digest} is no manifest, but larger than any")
        if hashlib.sha256(data).hexdigest() != hex_of(digest):
            raise IntegrityError(f"{self.path}: the bytes of {digest} are others")
        return data

    def _manifest(self, digest: Digest, platform: Platform, depth: int) -> Manifest:
        """Return the image manifest that a digest leads to, through indexes if need be."""
        manifest = Manifest(data=self._document(digest), media_type=MANIFEST)
        value = manifest.json()
        if ("manifests" in value) == ("layers" in value) or not depth:
            raise IntegrityError(f"{self.path}: {digest} is neither an image nor an index of some")
        if "layers" in value:
            return manifest
        index = Manifest(data=manifest.data, media_type=INDEX)
        listed = zip(value["manifests"], index.children, strict=True)
        fitting = [child for item, child in listed if _fits(item, platform)]
        if not fitting:
            raise AbsentError(f"the index {digest} lists no image for {platform}")
        return self._manifest(fitting[0].digest, platform, depth - 1)

    def _config(self, described: Descriptor) -> _Config:
        data = self._document(described.digest)
        try:
            return _Config.model_validate_json(data)
        except ValidationError as error:
            raise IntegrityError(f"{described.digest} is no image's config: {error}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Layout]:
    """Open a layout.

    Raises:
        InputError: there is none at this path.
        IntegrityError: the archive is broken.
    """
    if path.is_dir():
        layout = Layout(path, None, {})
        _check(layout)
        yield layout
        return
    try:
        source = path.open("rb")
    except OSError as error:
        raise _not_a_layout(path, error.strerror or str(error)) from error
    with source, reading(str(path)), tarfile.TarFile(fileobj=_guarded(source)) as archive:
        members = {}
        for count, member in enumerate(archive):
            if count > MAX_FILES:
                raise IntegrityError(f"{path} holds more than {MAX_FILES} files")
            if member.isreg():
                members[member.name.removeprefix("./")] = member
        layout = Layout(path, archive, members)
        _check(layout)
        yield layout


def _guarded(source: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", Guarded(source))


def _check(layout: Layout) -> None:
    for name in ("oci-layout", "index.json"):
        source = layout._open(name)  # noqa: SLF001 - this module's own
        if source is None:
            raise _not_a_layout(layout.path, f"it has no {name}")
        with source:
            data = source.read(MAX_MANIFEST_BYTES)
        try:
            value: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _not_a_layout(layout.path, f"its {name} is no JSON") from error
        version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
        if name == "oci-layout" and version != VERSION:
            raise _not_a_layout(layout.path, f"its version is {version}, not {VERSION}")


def _not_a_layout(path: Path, because: str) -> InputError:
    message = f"not an OCI image layout, directory or .tar: {because}"
    return InputError(Diagnostic(code="layout", message=message, file=str(path)))


def _place(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _fits(item: dict[str, Any], platform: Platform) -> bool:
    """Whether an index's entry is an image for a platform, not an attestation of one.

    An entry without a platform may be any image: what its config says is checked later.
    """
    if REFERENCE_TYPE in (item.get("annotations") or {}):
        return False
    where = item.get("platform")
    if not isinstance(where, dict):
        return True
    return (where.get("os"), where.get("architecture")) == (platform.os, platform.architecture)
