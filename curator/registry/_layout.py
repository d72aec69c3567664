"""OCI image layouts on disk, held against what their index says before anything is sent.

Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from curator.errors import IntegrityError
from curator.oci import MAX_MANIFEST_BYTES, Descriptor, Digest, Manifest, hex_of, parse_digest
from curator.registry._manifests import checked, tree

if TYPE_CHECKING:
    from pathlib import Path


def manifests(layout: Path) -> list[Manifest]:
    """Return the manifests of a layout's one image, children first.

    Raises:
        IntegrityError: the layout is not what its index says.
    """
    return tree(_manifest(layout, _listed(layout)), lambda c: _manifest(layout, c), str(layout))


def blob_path(layout: Path, blob: Descriptor) -> Path:
    """Return where a blob is, once its bytes were held against its descriptor.

    Raises:
        IntegrityError: it is missing, or another.
    """
    path = _path(layout, blob.digest)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path} is missing from the layout") from error
    if (digest, size) != (blob.digest, blob.size):
        raise IntegrityError(
            f"{path} has {size} bytes of {digest}, not what the layout's index says"
        )
    return path


def _manifest(layout: Path, listed: Descriptor) -> Manifest:
    if listed.size > MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{layout} has a manifest of {listed.size} bytes, too many")
    path = blob_path(layout, listed)
    return checked(Manifest(data=path.read_bytes(), media_type=listed.media_type), str(path))


def _listed(layout: Path) -> Descriptor:
    try:
        found: list[dict[str, Any]] = json.loads((layout / "index.json").read_text())["manifests"]
        (listed,) = found
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{layout} is no OCI layout of one image: {error}") from error
    if not isinstance(listed, dict):
        raise IntegrityError(f"{layout} is no OCI layout of one image")
    return Descriptor.from_json(listed)


def _path(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / hex_of(parse_digest(digest))
