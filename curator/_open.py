"""Opening a published index: what `curator.open_index` is."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - get_type_hints looks it up
from pathlib import Path

from curator.reader import IndexReader, open_reader
from curator.settings import located, reader_cache


def open_index(  # noqa: PLR0913 - each has a default
    location: str | Path,
    *,
    keys: Sequence[bytes | str | Path] = (),
    threshold: int = 1,
    cache: Path | str | None = "",
    timeout_s: float = 30.0,
    offline: bool = False,
) -> IndexReader:
    """Open a published index and verify its newest state.

    `location` is an `https://` address or a directory: what `v1/` stands in. `keys` are public
    keys (PEM, or files of it), of which `threshold` have to sign the head; without any, those
    that the index names at first use are pinned, with its own threshold. `cache` is a directory for
    verified documents and pins, by default below the user's cache, and done without where that
    cannot be written; None remembers nothing. `timeout_s` bounds each document's fetch, retries
    included, in seconds; where a verified copy is at hand the head is waited for 3 s at most.
    `offline` asks no network: what the cache has is read.

    Raises:
        curator.errors.InputError: the location is none that can be read, a key is none, or more
            keys have to sign than are given.
        curator.errors.HostError: the directory or `cache` cannot be read or written, or the
            certificates that this machine names cannot be loaded.
        curator.errors.RefusedError: there is no index, or its server refuses.
        curator.errors.IntegrityError: what is there is not to be believed; `code` says why.
        curator.errors.TemporaryError: it does not answer, and there is no copy of before.
    """
    # A relative path is another place in another directory.
    place = located(str(location), Path.cwd())
    return open_reader(
        place,
        keys=keys,
        threshold=threshold,
        cache=reader_cache(place) if cache == "" else Path(cache) if cache else None,
        timeout_s=timeout_s,
        offline=offline,
        is_cache_required=cache != "",
    )
