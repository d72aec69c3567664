"""Bringing the page up beside the documents: by difference, and never an older one over a newer.

    v1/page.json    {"generation": 7, "files": {"index.html": SHA256, ...}}

It is written last, so that what a killed publisher left is written again. Files of images are
never removed: an entry does not vanish.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from curator.facts import facts
from curator.index import read_config, read_index
from curator.oci import canonical_json, sha256
from curator.publish._head import forward
from curator.resolve import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curator.ports import Store
    from curator.resolve import Catalogue

SITE_PATH: Final = "v1/page.json"


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
    """Write the page of a store's newest state; return the paths that were written.

    Where a page of a later generation stands, or one is written meanwhile, nothing is.
    """
    known = read_catalogue(store)
    if known is None:
        return ()
    from curator.page import site  # noqa: PLC0415 - jinja2, only where a page is made

    made = site(known, facts())
    blob = store.read(SITE_PATH)
    before = _read(blob.data) if blob else {}
    if before.get("generation", 0) > known.generation:
        return ()
    hashes = {path: sha256(data) for path, data in made.items()}
    written = before.get("files", {})
    changed = [path for path, digest in hashes.items() if written.get(path) != digest]
    for path in changed:
        forward(store, path, partial(_other, made[path]))
    if changed or before.get("generation") != known.generation:
        document = canonical_json({"generation": known.generation, "files": {**written, **hashes}})
        number = known.generation
        forward(
            store, SITE_PATH, lambda now: document if _generation(now or b"") < number else None
        )
    return tuple(changed)


def _other(data: bytes, found: bytes | None) -> bytes | None:
    return data if data != found else None


def _read(data: bytes) -> Mapping[str, Any]:
    """Return what was written before; of a damaged file nothing."""
    try:
        value = json.loads(data)
        if type(value["generation"]) is int and isinstance(value["files"], dict):
            return {"generation": value["generation"], "files": value["files"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}


def _generation(data: bytes) -> int:
    found: int = _read(data).get("generation", 0)
    return found
