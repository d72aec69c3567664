"""Step one: the image stands in its curated repository, by digest and signed; no tag moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curator.errors import IntegrityError, RefusedError
from curator.policy import TAGGED, immutable_tag, repository
from curator.publish._sign import sign_image
from curator.publish._values import TakenError

if TYPE_CHECKING:
    from curator.index import Entry
    from curator.oci import Reference
    from curator.publish._values import Change, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A change, the entry as which the index would take it, and where its image comes from."""

    change: Change
    entry: Entry
    source: Reference | None

    def bring(self, entry: Entry, source: Reference | None, target: Target) -> None:
        """See to it that the image stands where the index has come to take it."""
        if entry.repository != self.entry.repository:
            bring(entry, source, target)


def bring(entry: Entry, source: Reference | None, target: Target) -> None:
    """Copy an image by digest to where its entry says it is; where its tag stands, it is there.

    What nobody is to pull stays where it is.

    Raises:
        TakenError: the immutable tag names another image.
        IntegrityError: the image that arrived is another one.
    """
    registry = target.registry
    if not _is_pulled(entry):
        return
    there = target.place.repository(entry.repository)
    name = there.with_tag(entry.tags[0])
    taken = registry.resolve(name)
    if taken is not None:
        if taken.digest != entry.digest:
            raise TakenError(str(name), have=taken.digest, want=entry.digest)
        return
    if source is None or source.digest != entry.digest:
        raise IntegrityError(f"{entry.id} is {entry.digest}, its source is {source}")
    copied = registry.copy(source, there)
    if copied != entry.digest:
        raise IntegrityError(f"{there}: copied {source}, {copied} arrived")
    if target.signer is not None:
        sign_image(there.with_digest(entry.digest), target)


def _is_pulled(entry: Entry) -> bool:
    """Say whether an entry stands in a channel, under the names that the policy gives there."""
    if entry.status.state not in TAGGED:
        return False
    if entry.status.state == "deprecated" and entry.channel is None:
        return False  # what fails after that keeps its names and gets no new ones
    names = (repository(entry.stack.framework, entry.channel), (immutable_tag(entry),))
    if entry.channel is None or (entry.repository, entry.tags) != names:
        raise RefusedError(f"{entry.id} was not admitted by the gates: {entry.status.state}")
    return True
