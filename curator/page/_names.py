"""Names that become paths, addresses and commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from curator.errors import IntegrityError
from curator.index import evidence_path, minor_of
from curator.oci import Digest
from curator.resolve import RUN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.resolve import Catalogue, Image

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]{0,199}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
COMMAND: Final = " ".join(RUN)


def refuse_strange(known: Catalogue, images: Iterable[Image]) -> None:
    """Refuse a catalogue with names that no index has, before one becomes a path or a command.

    Raises:
        IntegrityError: there is one.
    """
    for image in images:
        for name in (image.id, image.framework, *image.repository.split("/")):
            if not _NAME.fullmatch(name):
                raise IntegrityError(f"{name!r} is no name that a page can have")
        for reference in (known.reference(image), *image.tags, *image.moving):
            if not _REFERENCE.fullmatch(reference):
                raise IntegrityError(f"{image.id}: {reference!r} is no reference of an image")


def image_page(image: Image) -> str:
    """Return the path of an image's page."""
    return f"image/{image.id}.html"


def framework_page(name: str) -> str:
    """Return the path of a framework's page."""
    return f"framework/{name}.html"


def renovate_file(repository: str) -> str:
    """Return the path of a repository's releases: digests of one repository are in no other."""
    return f"renovate/{repository}.json"


def anchor(image: Image) -> str:
    """Return the name of an image's group on its framework's page: `2.9-cuda12.8`."""
    return f"{minor_of(image.version)}-cuda{image.label.cuda}"


def evidence_file(digest: str | None) -> str | None:
    """Return the path of a report in the store; None if there is none to be named."""
    return evidence_path(Digest(digest)) if digest and _DIGEST.fullmatch(digest) else None


def day(time: str | None) -> str:
    """Return the day of a time of the index: `2026-11-23`."""
    return (time or "")[:10]


def minute(time: str) -> str:
    """Return a time of the index to read: `2026-11-23 12:00 UTC`."""
    return f"{time[:10]} {time[11:16]} UTC" if time else "at no known time"
