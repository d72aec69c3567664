"""Manifests that may be trusted to mean one thing, and a memory of those seen.

- One reading: JSON without a key twice, one media type, children or layers but not both. What
  one program takes for an index must not be an image to another.
- An image is a tree of manifests, bounded in depth, number and bytes.
- What is kept was checked, is found by digest alone, and only where it was read or written.

Source: https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from curator.errors import IntegrityError
from curator.oci import MANIFEST_TYPES, MAX_MANIFEST_BYTES, Descriptor, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.oci import Digest, Reference

MAX_DEPTH: Final = 4
MAX_MANIFESTS: Final = 1000
MAX_TREE_BYTES: Final = 64 * 1024 * 1024
MEMORY_BYTES: Final = 64 * 1024 * 1024


def checked(manifest: Manifest, where: str) -> Manifest:
    """Return a manifest that has one meaning.

    Raises:
        IntegrityError: it is no manifest, or can be read in two ways.
    """
    if manifest.media_type not in MANIFEST_TYPES:
        raise IntegrityError(f"{where} is no image but {manifest.media_type[:100]!r}")
    if len(manifest.data) > MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{where} has a manifest of {len(manifest.data)} bytes, too many")
    try:
        document = json.loads(manifest.data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        told = str(error)[:200]
        raise IntegrityError(f"{where} has a manifest that is no proper JSON: {told}") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{where} has a manifest that is no JSON object")
    if document.get("mediaType", manifest.media_type) != manifest.media_type:
        told = str(document["mediaType"])[:100]
        raise IntegrityError(f"{where} is {manifest.media_type} and says that it is {told}")
    foreign = {"config", "layers"} if manifest.is_index else {"manifests"}
    if both := sorted(foreign & document.keys()):
        raise IntegrityError(f"{where} is {manifest.media_type} and has {' and '.join(both)}")
    return manifest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def tree(top: Manifest, fetch: Callable[[Descriptor], Manifest], where: str) -> list[Manifest]:
    """Return all manifests of an image, each once, children before those that list them.

    Raises:
        IntegrityError: a child is no manifest or not as described, or there is no end to them.
    """
    found: dict[Digest, Manifest] = {}
    left = [MAX_TREE_BYTES]

    def visit(manifest: Manifest, depth: int) -> None:
        left[0] -= len(manifest.data)
        if depth > MAX_DEPTH or len(found) >= MAX_MANIFESTS or left[0] < 0:
            raise IntegrityError(f"{where} nests or lists more manifests than an image has")
        for child in manifest.children:
            if child.digest not in found:
                visit(_as_described(child, fetch, where), depth + 1)
        found[manifest.digest] = manifest

    visit(top, 1)
    return list(found.values())


def _as_described(
    child: Descriptor, fetch: Callable[[Descriptor], Manifest], where: str
) -> Manifest:
    if child.media_type not in MANIFEST_TYPES:
        told = child.media_type[:100]
        raise IntegrityError(f"{where} lists {child.digest}, which is no manifest but {told!r}")
    if child.size > MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{where} lists a manifest of {child.size} bytes, too many")
    manifest = fetch(child)
    if manifest.descriptor != child:
        has = f"{len(manifest.data)} bytes of {manifest.media_type}"
        raise IntegrityError(
            f"{where} lists {child.digest} as {child.size} bytes of {child.media_type[:100]}, "
            f"and it has {has}"
        )
    return manifest


class Memory:
    """The manifests seen last, by repository and digest; safe to use from several threads."""

    def __init__(self, size: int = MEMORY_BYTES) -> None:
        self._guard = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], Manifest] = OrderedDict()
        self._left = size

    def get(self, reference: Reference) -> Manifest | None:
        """Return the manifest at a reference's digest, if it was seen there."""
        key = (reference.registry, reference.repository, reference.digest or "")
        with self._guard:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, reference: Reference, manifest: Manifest) -> None:
        """Remember what was read or written in a reference's repository."""
        key = (reference.registry, reference.repository, manifest.digest)
        with self._guard:
            if key not in self._kept:
                self._left -= len(manifest.data)
            self._kept[key] = manifest
            self._kept.move_to_end(key)
            while self._left < 0:
                _, oldest = self._kept.popitem(last=False)
                self._left += len(oldest.data)
