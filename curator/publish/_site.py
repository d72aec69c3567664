"""Bringing the page up beside the documents: by difference, and never an older one for good.

    v1/page.json    {"generation": 7, "sha256": ITS HASH, "files": {"index.html": SHA256, ...}}

- It is made of the whole state, so it is no part of each publish: whoever publishes several images
  writes it once after them, and `recover` and a repair write it where that did not happen.
- `page.json` is written last, so that what a killed publisher left is written again. Whoever finds
  that somebody else wrote it meanwhile, or published, does it again on what stands there.
- Files of images are never removed: an entry does not vanish.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from curator.errors import ConflictError, CuratorError
from curator.facts import facts
from curator.index import read_config, read_generation, read_index, read_tip
from curator.oci import canonical_json, sha256
from curator.publish._head import forward
from curator.resolve import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store
    from curator.resolve import Catalogue

log = logging.getLogger(__name__)

SITE_PATH: Final = "v1/page.json"
FRONT_PATH: Final = "index.html"
ROUNDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What `page.json` says: of which generation the page is, and the hashes of its files."""

    data: bytes = b""
    etag: str | None = None
    generation: int = 0
    sha256: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def read_catalogue(store: Store) -> Catalogue | None:
    """Return the catalogue of a store's newest state; None before the first publish.

    Raises:
        IntegrityError: as `read_index`.
    """
    config, found = read_config(store), read_index(store)
    if config is None or found.tip is None:
        return None
    return catalogue(found.tip, config.registry, found.entries, found.tags)


def write_site(store: Store) -> tuple[str, ...]:
    """Bring the page to the newest state by difference; return the paths of what changed.

    A few small reads where it is of that state. That it fails is said, and fails nothing.
    """
    try:
        tip, before = read_tip(store), _written(store)
        if tip is None or before.sha256 == tip.sha256:
            return ()
        return _bring_up(store, before, before.files if _is_of_chain(before, store) else {})
    except CuratorError as error:
        log.warning("the page was not written: %s (`curator page --publish` writes it)", error)
        return ()


def mend_site(store: Store) -> tuple[str, ...]:
    """Write the files of the page that are not what they should be; return their paths."""
    return _bring_up(store, _written(store), {})


def has_page(store: Store) -> bool:
    """Say whether a page was ever written: it says so, or is there."""
    return any(store.read(path) is not None for path in (SITE_PATH, FRONT_PATH))


def stale_pages(store: Store) -> tuple[str, ...]:
    """Return the files of the page that are not what they should be; none where no page is.

    A page of an earlier generation is none of them: whoever comes next brings it up.

    Raises:
        IntegrityError: it cannot be made.
    """
    before = _written(store)
    state = read_catalogue(store) if has_page(store) else None
    if state is None or (before.sha256 != state.sha256 and _is_of_chain(before, store)):
        return ()
    stale = [] if before.etag else [SITE_PATH]
    for path, data in _site(state).items():
        blob = store.read(path)
        if blob is None or blob.data != data:
            stale.append(path)
    return tuple(stale)


def _is_of_chain(written: Written, store: Store) -> bool:
    """Say whether a page is of a generation that the store has: it may have been set back."""
    tip = read_generation(store, written.generation) if written.generation > 0 else None
    return tip is not None and tip.sha256 == written.sha256


def _bring_up(store: Store, before: Written, known: Mapping[str, str]) -> tuple[str, ...]:
    """Write what differs from what is known, until nobody else has published or written it."""
    changed: dict[str, None] = {}
    try:
        for _ in range(ROUNDS):
            state = read_catalogue(store)
            made = _site(state)
            hashes = {path: sha256(data) for path, data in made.items()}
            for path in (path for path in made if known.get(path) != hashes[path]):
                for one in forward(store, path, partial(_other, made[path])):
                    changed[one] = None
            if state is None or _is_noted(store, before, state, {**before.files, **hashes}):
                return tuple(changed)
            before, known = _written(store), {}
    except CuratorError:
        _take_back(store)
        raise
    _take_back(store)  # publishers who never rest write it themselves
    return tuple(changed)


def _site(state: Catalogue | None) -> Mapping[str, bytes]:
    if state is None:
        return {}
    from curator.page import site  # noqa: PLC0415 - jinja2, only where a page is made

    return site(state, facts())


def _is_noted(store: Store, before: Written, state: Catalogue, files: Mapping[str, str]) -> bool:
    """Note what was written; False if somebody published, or wrote the page, meanwhile."""
    tip, now = read_tip(store), _written(store)
    if tip is None or tip.sha256 != state.sha256 or now.etag != before.etag:
        return False
    fields = {"generation": state.generation, "sha256": state.sha256, "files": files}
    data = canonical_json(fields)
    if now.data == data:
        return True
    try:
        store.replace(SITE_PATH, data, before.etag)
    except ConflictError:
        return False
    return True


def _take_back(store: Store) -> None:
    """Let whoever writes the page next trust no file of it."""
    fields = {"generation": 0, "sha256": "", "files": {}, "doubt": uuid.uuid4().hex}
    try:
        if store.read(SITE_PATH) is not None:
            forward(store, SITE_PATH, lambda _: canonical_json(fields))
    except CuratorError as error:
        log.warning("the page may lag behind until an audit: %s", error)


def _other(data: bytes, found: bytes | None) -> bytes | None:
    return data if data != found else None


def _written(store: Store) -> Written:
    """Return what was written before; of a damaged note nothing but its etag."""
    blob = store.read(SITE_PATH)
    if blob is None:
        return Written()
    bare = Written(data=blob.data, etag=blob.etag)
    try:
        value = json.loads(blob.data)
        generation, digest, files = value["generation"], value["sha256"], value["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return bare
    if type(generation) is int and isinstance(digest, str) and isinstance(files, dict):
        return replace(bare, generation=generation, sha256=digest, files=files)
    return bare
