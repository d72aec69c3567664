"""Which parts of an index a question is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.compat import begins
from curator.index import minor_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from curator.index import Entry


def matches_version(version: str, wanted: str | None) -> bool:
    """Say whether a version is the wanted one."""
    return wanted is None or begins(version, wanted)


def matches_minor(minor: str, wanted: str | None) -> bool:
    """Say whether versions of a minor can be wanted: 14.2 for `14`, `14.2` and `14.2.0`."""
    return wanted is None or begins(minor, wanted) or minor_of(wanted) == minor


def matches_cuda(cuda: str, wanted: str | None) -> bool:
    """Say whether a CUDA version is the wanted one."""
    return wanted is None or begins(cuda, wanted)


def wanted_frameworks(name: str, known: Collection[str]) -> Collection[str]:
    """Return the frameworks that a tag, id or cell can be of; all of them for a digest."""
    if name.startswith("sha256:"):
        return known
    repository, colon, _ = name.rpartition(":")
    if colon:
        return {repository.rpartition("/")[2]}
    return {framework for framework in known if name.startswith(f"{framework}-")}


def names_of(entry: Entry) -> set[str]:
    """Return what an entry is asked for by; its moving tags are its group's to know."""
    tags = {f"{entry.repository}:{tag}" for tag in entry.tags}
    return {entry.id, entry.cell, entry.digest, *tags}
