"""Step one: the image stands in its curated repository, by digest and signed; no tag moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.errors import IntegrityError, RefusedError
from curator.policy import immutable_tag, repository
from curator.publish._sign import sign_image
from curator.publish._values import TakenError

if TYPE_CHECKING:
    from curator.publish._values import Change, Target


def bring(change: Change, target: Target) -> None:
    """Copy an image by digest to where its entry says it is; where its tag stands, it is there.

    Raises:
        TakenError: the immutable tag names another image.
        IntegrityError: the image that arrived is another one.
    """
    entry, registry = change.entry, target.registry
    _require_admitted(change)
    there = target.place.repository(entry.repository)
    name = there.with_tag(entry.tags[0])
    taken = registry.resolve(name)
    if taken is not None:
        if taken.digest != entry.digest:
            raise TakenError(str(name), have=taken.digest, want=entry.digest)
        return
    if change.source is None or change.source.digest != entry.digest:
        raise IntegrityError(f"{entry.id} is {entry.digest}, its source is {change.source}")
    copied = registry.copy(change.source, there)
    if copied != entry.digest:
        raise IntegrityError(f"{there}: copied {change.source}, {copied} arrived")
    if target.signer is not None:
        sign_image(there.with_digest(entry.digest), target)


def _require_admitted(change: Change) -> None:
    """Refuse an entry whose names are not those that the policy gives."""
    entry = change.entry
    names = (repository(entry.stack.framework, entry.channel), (immutable_tag(entry),))
    if entry.channel is None or (entry.repository, entry.tags) != names:
        raise RefusedError(f"{entry.id} was not admitted by the gates: {entry.status.state}")
