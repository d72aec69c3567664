"""The catalogue of a head that was verified before, without loading what verifies one."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from curator.errors import IntegrityError, TemporaryError
from curator.oci import Digest, hex_of
from curator.places import HEAD_PATH
from curator.reader._directory import Nowhere
from curator.reader._values import PATIENCE_S
from curator.resolve import Catalogue

if TYPE_CHECKING:
    from curator.reader._cache import Cache
    from curator.reader._values import Copy, Origin

log = logging.getLogger(__name__)


def quick_catalogue(origin: Origin, cache: Cache) -> Catalogue | None:
    """Return the remembered catalogue if the head at the origin is the one it was made of.

    That head was verified when it was remembered; what may have changed since is looked at again:
    whether it is past its end, and whether this cache has seen a later one. None means that only
    the whole way tells, or has to say what is wrong.

    Raises:
        IntegrityError: the pins are damaged.
        RefusedError: the origin refuses.
    """
    before = cache.copy()
    digest = _still_good(before, cache) if before else None
    data = cache.made(hex_of(digest)) if digest else None
    if before is None or data is None:
        return None
    try:
        fetched = origin.get(HEAD_PATH, before.etag, within_s=PATIENCE_S)
    except TemporaryError as error:
        if not isinstance(origin, Nowhere):
            log.warning("reading the copy of before: %s", error)
    else:
        if fetched is None or fetched.data not in {None, before.data}:
            return None
    try:
        return Catalogue.read(data)
    except IntegrityError:
        return None


def _still_good(copy: Copy, cache: Cache) -> Digest | None:
    """Return the hash of the state that a verified head names, while it may be read."""
    head, pins = json.loads(copy.data), cache.pins()
    if pins is None or (pins.gen, pins.sha256) != (head["gen"], head["sha256"]):
        return None
    expires = head.get("expires")
    if expires is not None and datetime.fromisoformat(expires) < datetime.now(UTC):
        return None
    return Digest(head["sha256"])
