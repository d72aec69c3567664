"""The vocabulary of the OCI distribution and image specifications, as values.

- A `Digest` is `sha256:` and 64 lower-case hex digits; no other algorithm is accepted, because
  the registries we publish to serve no other reliably.
- A `Manifest` keeps the bytes it was read from: its digest is the hash of those bytes, and
  pushing it means sending those bytes. It is never serialised again.
- `canonical_json` is the only serialisation that is ever hashed.

Source: https://github.com/opencontainers/image-spec, https://github.com/opencontainers/distribution-spec

>>> sha256(b"")
'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
>>> Reference.parse("localhost:5000/candidate/cupy:14.2").repository
'candidate/cupy'
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, NewType

from curator.errors import Diagnostic, InputError, IntegrityError

Digest = NewType("Digest", str)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

INDEX_TYPES = frozenset({INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({MANIFEST, DOCKER_MANIFEST}) | INDEX_TYPES
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST_PART = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REFERENCE = re.compile(
    rf"(?:(?P<registry>(?:\[[0-9A-Fa-f:.]+\]|(?=[^/@]*[.:]){_HOST_PART}(?:\.{_HOST_PART})*)"
    r"(?::[0-9]{1,5})?|localhost)/)?"
    r"(?P<repository>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


def canonical_json(value: object) -> bytes:
    """Return the one byte string that stands for a JSON value: sorted keys, no spaces, UTF-8.

    Floats are refused: two writers would not agree on their digits.
    """
    _refuse_floats(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"canonical JSON holds no floats, got {value!r}")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)


def sha256(data: bytes) -> Digest:
    """Return the digest of some bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def parse_digest(text: str) -> Digest:
    """Return the text as a digest.

    Raises:
        InputError: it is not `sha256:` and 64 lower-case hex digits.
    """
    if not _DIGEST.fullmatch(text):
        raise InputError(Diagnostic(code="digest", message=f"not a sha256 digest: {text!r}"))
    return Digest(text)


def hex_of(digest: Digest) -> str:
    """Return the 64 hex digits of a digest."""
    return digest.removeprefix("sha256:")


def parse_registry(text: str) -> tuple[str, str]:
    """Return host and prefix of `host[:port][/prefix]`, where a farm's repositories are.

    Raises:
        InputError: engines would not take it for that.
    """
    registry, _, prefix = text.partition("/")
    match = _REFERENCE.fullmatch(f"{text}/x")
    if match is None or match["registry"] != registry:
        message = f"not a registry: {text!r}"
        hint = "write host[:port][/prefix]; a host without a dot needs its port"
        if "://" in text:
            hint = f"leave {text.partition('://')[0]}:// out: host[:port][/prefix]"
        raise InputError(Diagnostic(code="reference", message=message, hint=hint))
    return registry, prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """An operating system and processor architecture, written `linux/amd64`."""

    os: str
    architecture: str

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture`; a variant such as `/v8` is refused, no wheel depends on it."""
        system, _, architecture = text.partition("/")
        if not _PLATFORM.fullmatch(text):
            message = f"not a platform such as linux/amd64: {text!r}"
            raise InputError(Diagnostic(code="platform", message=message))
        return cls(os=system, architecture=architecture)

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where an image is: registry host, repository, and a tag, a digest or both."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, registry: str = "") -> Reference:
        """Read a reference; `registry` is used where the text names none.

        Raises:
            InputError: the text is no reference.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            message = f"not an image reference: {text!r}"
            raise InputError(Diagnostic(code="reference", message=message))
        digest = match["digest"]
        return cls(
            registry=match["registry"] or registry,
            repository=match["repository"],
            tag=match["tag"],
            digest=Digest(digest) if digest else None,
        )

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository at another tag, without a digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same repository at a digest, without a tag."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        host = f"{self.registry}/" if self.registry else ""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{host}{self.repository}{tag}{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What points at content: its media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """Describe bytes at hand."""
        return cls(media_type=media_type, digest=sha256(data), size=len(data))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Descriptor:
        """Read a descriptor out of a manifest.

        Raises:
            IntegrityError: a field is missing or of the wrong type.
        """
        media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
        valid = isinstance(media_type, str) and isinstance(digest, str)
        if not (valid and type(size) is int and _DIGEST.fullmatch(str(digest)) and size >= 0):
            raise IntegrityError(f"not a descriptor: {str(value)[:200]}")
        return cls(media_type=str(media_type), digest=Digest(str(digest)), size=size)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as manifests hold it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest or index as the bytes it was read from."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """The hash of the bytes: the image's identity."""
        return sha256(self.data)

    @property
    def descriptor(self) -> Descriptor:
        """What points at this manifest."""
        return Descriptor.of(self.data, self.media_type)

    @property
    def is_index(self) -> bool:
        """Whether this lists other manifests rather than layers."""
        return self.media_type in INDEX_TYPES

    def json(self) -> dict[str, Any]:
        """Return the parsed manifest.

        Raises:
            IntegrityError: it is no JSON object.
        """
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"manifest {self.digest} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise IntegrityError(f"manifest {self.digest} is no JSON object")
        return value

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests that an index lists, in its order; none for an image manifest."""
        return self._descriptors("manifests") if self.is_index else ()

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and layers of an image manifest, in its order; none for an index."""
        if self.is_index:
            return ()
        config = self.json().get("config")
        if not isinstance(config, dict):
            raise IntegrityError(f"manifest {self.digest} has no config")
        return (Descriptor.from_json(config), *self._descriptors("layers"))

    def _descriptors(self, field: str) -> tuple[Descriptor, ...]:
        return tuple(Descriptor.from_json(item) for item in self._objects(field))

    def _objects(self, field: str) -> list[dict[str, Any]]:
        values = self.json().get(field)
        if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
            raise IntegrityError(f"manifest {self.digest} has no list of {field}")
        return values

    def platform_digest(self, platform: Platform) -> Digest:
        """Return the digest of the image manifest for one platform.

        Raises:
            IntegrityError: an index that does not list the platform, or is misshapen.
        """
        if not self.is_index:
            return self.digest
        for item in self._objects("manifests"):
            where = item.get("platform")
            found = (where.get("os"), where.get("architecture")) if isinstance(where, dict) else ()
            if found == (platform.os, platform.architecture):
                return Descriptor.from_json(item).digest
        raise IntegrityError(f"index {self.digest} holds no image for {platform}")
