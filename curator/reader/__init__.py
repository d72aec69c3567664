"""Reading a published index, from anywhere: verified, cached, and without docker or a cloud's SDK.

    index = curator.open_index("https://images.example/index/", keys=[Path("cosign.pub")])
    for entry in index.entries(framework="cupy", cuda="12"):
        print(index.reference(entry), entry.driver.min)

- Only what the head names counts, and all of it is held against the hashes below the head.
- With keys the head has to be signed by `threshold` of them. Without, the keys that the index
  names at first use are pinned: from then on they have to sign, as a known host's key has to.
- An older index than one that was seen (`RollbackError`), another one under a known number
  (`ForkError`), one past its end (`FreezeError`), documents of different states (`MixedError`) and
  another store, other keys or, of a signed index, another registry (`StrangerError`) are each
  refused.
- An unchanged index costs one request, answered with 304. Without a network the last verified
  copy is read, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import Diagnostic, InputError
from curator.reader._cache import Cache
from curator.reader._directory import DirectoryOrigin, Nowhere
from curator.reader._quick import quick_catalogue
from curator.reader._store import StoreOrigin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.index import SigningKey
    from curator.ports import Store
    from curator.reader._reader import IndexReader
    from curator.reader._values import Origin
    from curator.resolve import Catalogue

__all__ = ["open_reader", "read_catalogue"]


def open_reader(  # noqa: PLR0913 - as open_index
    location: str | Store,
    *,
    keys: Sequence[bytes | str | Path] = (),
    threshold: int = 1,
    cache: Path | None = None,
    timeout_s: float = 30.0,
    offline: bool = False,
) -> IndexReader:
    """Open the index at `location`; `curator.open_index` documents the parameters.

    A store is read with what opens it, as its publishers do.

    Raises:
        InputError: the location is none that can be read, or a key is none.
        RefusedError: there is no index.
        IntegrityError: what is there is not to be believed; the subclass says why.
        TemporaryError: it does not answer, and there is no copy of before.
    """
    origin = Nowhere() if offline else _origin(location, timeout_s)
    try:
        from curator.reader._reader import IndexReader  # noqa: PLC0415 - loads the index's models

        reader = IndexReader(
            origin, Cache(cache), trusted=[_key(key) for key in keys], threshold=threshold
        )
        reader.refresh()
    except BaseException:
        origin.close()
        raise
    return reader


def read_catalogue(  # noqa: PLR0913 - as open_index
    location: str | Store,
    *,
    keys: Sequence[bytes | str | Path] = (),
    threshold: int = 1,
    cache: Path | None = None,
    timeout_s: float = 30.0,
    offline: bool = False,
) -> Catalogue:
    """Return all images of an index as a resolver looks through them.

    Where the cache holds the catalogue of the very head that stands at `location`, nothing else
    is read. Raises as `open_reader`.
    """
    if cache is not None and not keys:
        origin = Nowhere() if offline else _origin(location, timeout_s)
        try:
            found = quick_catalogue(origin, Cache(cache))
        finally:
            origin.close()
        if found is not None:
            return found
    with open_reader(
        location,
        keys=keys,
        threshold=threshold,
        cache=cache,
        timeout_s=timeout_s,
        offline=offline,
    ) as reader:
        return reader.catalogue()


def _origin(location: str | Store, timeout_s: float) -> Origin:
    if not isinstance(location, str):
        return StoreOrigin(location)
    if location.lower().startswith(("https:", "http:")):
        from curator.reader._http import WebOrigin  # noqa: PLC0415 - not for directories

        return WebOrigin(location, timeout_s)
    return DirectoryOrigin.at(location)


def _key(key: bytes | str | Path) -> SigningKey:
    from curator.sign import public_key  # noqa: PLC0415 - only where something is signed

    if isinstance(key, Path):
        path = key
        try:
            key = path.read_bytes()
        except OSError as error:
            message = f"cannot read the key {path}: {error.strerror}"
            raise InputError(Diagnostic(code="key", message=message)) from error
    return public_key(key.encode() if isinstance(key, str) else key)
