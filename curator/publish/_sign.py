"""Signatures beside images, as cosign has them; one writer at a time, and each looks again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.errors import IntegrityError, SignatureError, TemporaryError
from curator.oci import Reference
from curator.sign import signature_tag, signed_image, verify_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.index import SigningKey
    from curator.oci import Descriptor, Manifest
    from curator.ports import Registry
    from curator.publish._values import Target

ATTEMPTS = 8


def sign_image(image: Reference, target: Target) -> bool:
    """Sign an image by its digest with the target's keys; False if they had signed it already.

    Whoever signs the same image at the same moment may write over our signature, so it is read
    back and added again.

    Raises:
        TemporaryError: others wrote over it too often.
    """
    signer, digest = target.signer, image.digest
    if signer is None or digest is None:
        raise ValueError(f"{image}: signing takes a signer and a digest")
    tag, keys, wrote = signature_tag(digest), signer.public, False
    with target.store.turn("sign"):
        for _ in range(ATTEMPTS):
            before = _signatures(image, target.registry)
            if before is not None and is_signed(image, keys, len(keys), target.registry):
                return wrote
            repository = Reference(registry=image.registry, repository=image.repository)
            manifest, blobs = signed_image(
                signer, str(repository), digest, before, lambda blob: _is_there(image, blob, target)
            )
            target.registry.put(repository, manifest, blobs, tag=tag)
            wrote = True
    raise TemporaryError(f"{image}: others signed it at the same time, again and again: try again")


def _is_there(image: Reference, blob: Descriptor, target: Target) -> bool:
    try:
        return target.registry.has(image, blob)
    except IntegrityError:  # of another size
        return False


def is_signed(
    image: Reference, keys: Sequence[SigningKey], threshold: int, registry: Registry
) -> bool:
    """Say whether enough of these keys signed an image's digest."""
    found = _signatures(image, registry)
    if found is None or image.digest is None:
        return False
    try:
        verify_image(found, image.digest, keys, threshold, lambda d: registry.blob(image, d))
    except SignatureError:
        return False
    return True


def _signatures(image: Reference, registry: Registry) -> Manifest | None:
    """Return the manifest of an image's signatures, if it has any."""
    if image.digest is None:
        return None
    where = image.with_tag(signature_tag(image.digest))
    found = registry.resolve(where)
    return registry.manifest(where.with_digest(found.digest)) if found else None
