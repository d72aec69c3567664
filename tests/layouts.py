"""Small OCI layouts, made by hand: what a build would hand to a push, in milliseconds.

The same contents give the same digests.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.oci import (
    CONFIG,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    Digest,
    Manifest,
    canonical_json,
    hex_of,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A layout on disk, its image, and the image's manifests, children first."""

    path: Path
    manifests: tuple[Manifest, ...]

    @property
    def image(self) -> Manifest:
        """The one manifest that the layout's index lists."""
        return self.manifests[-1]

    @property
    def digest(self) -> Digest:
        """The image's digest."""
        return self.image.digest

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Configs and layers of all manifests."""
        return tuple(dict.fromkeys(blob for m in self.manifests for blob in m.blobs))

    def blob_file(self, digest: Digest) -> Path:
        """Where a blob's bytes are."""
        return self.path / "blobs" / "sha256" / hex_of(digest)


def layer(name: str, content: bytes) -> bytes:
    """Return a compressed layer of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def image(path: Path, contents: Sequence[bytes]) -> Layout:
    """Write a layout of a plain image: one layer for each of the contents."""
    manifest = _image(path, contents)
    _list(path, manifest)
    return Layout(path=path, manifests=(manifest,))


def attested(path: Path, contents: Sequence[bytes]) -> Layout:
    """Write a layout as BuildKit does: an index of an image and its provenance."""
    manifest = _image(path, contents)
    provenance = _provenance(path, manifest)
    entries: list[dict[str, Any]] = [
        manifest.descriptor.to_json() | {"platform": {"os": "linux", "architecture": "amd64"}},
        provenance.descriptor.to_json()
        | {
            "annotations": {
                "vnd.docker.reference.digest": manifest.digest,
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": {"os": "unknown", "architecture": "unknown"},
        },
    ]
    index = _manifest(path, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)
    _list(path, index)
    return Layout(path=path, manifests=(manifest, provenance, index))


def _image(path: Path, contents: Sequence[bytes]) -> Manifest:
    layers = [layer(f"file{number}", content) for number, content in enumerate(contents)]
    diff_ids = [sha256(gzip.decompress(data)) for data in layers]
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Labels": {"made": "by hand"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return _with_layers(path, config, [_blob(path, data, LAYER_GZIP) for data in layers])


def _provenance(path: Path, subject: Manifest) -> Manifest:
    statement = canonical_json({"_type": "statement", "subject": subject.digest})
    described = _blob(path, statement, IN_TOTO)
    config = {
        "os": "unknown",
        "architecture": "unknown",
        "rootfs": {"type": "layers", "diff_ids": [described.digest]},
    }
    return _with_layers(path, config, [described])


def _with_layers(path: Path, config: object, layers: Sequence[Descriptor]) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(path, canonical_json(config), CONFIG).to_json(),
        "layers": [described.to_json() for described in layers],
    }
    return _manifest(path, document, MANIFEST)


def _manifest(path: Path, document: object, media_type: str) -> Manifest:
    # Indented, as BuildKit writes it: a client that parses and writes again changes the digest.
    data = json.dumps(document, indent=2).encode()
    _blob(path, data, media_type)
    return Manifest(data=data, media_type=media_type)


def _blob(path: Path, data: bytes, media_type: str) -> Descriptor:
    described = Descriptor.of(data, media_type)
    folder = path / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hex_of(described.digest)).write_bytes(data)
    return described


def _list(path: Path, manifest: Manifest) -> None:
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entries = [manifest.descriptor.to_json()]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    (path / "index.json").write_text(json.dumps(index))
