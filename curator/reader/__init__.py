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
from typing import TYPE_CHECKING, Final

from curator.errors import Diagnostic, InputError, MixedError
from curator.oci import hex_of, sha256
from curator.reader._cache import Cache
from curator.reader._directory import DirectoryOrigin, Nowhere
from curator.reader._quick import quick_catalogue
from curator.reader._store import StoreOrigin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from curator.index import Entry, SigningKey
    from curator.ports import Store
    from curator.reader._reader import IndexReader
    from curator.reader._values import Origin
    from curator.resolve import Catalogue

__all__ = ["Entry", "IndexReader", "open_reader", "read_catalogue", "read_documents"]

HASH_DIGITS: Final = 64


def __getattr__(name: str) -> object:
    """Load the types when they are first asked for: `read_catalogue` does without them."""
    if name == "Entry":
        from curator.index import Entry  # noqa: PLC0415

        return Entry
    if name == "IndexReader":
        from curator.reader._reader import IndexReader  # noqa: PLC0415

        return IndexReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_reader(  # noqa: PLR0913 - as open_index
    location: str | Store,
    *,
    keys: Sequence[bytes | str | Path] = (),
    threshold: int = 1,
    cache: Path | None = None,
    timeout_s: float = 30.0,
    offline: bool = False,
    is_cache_required: bool = False,
) -> IndexReader:
    """Open the index at `location`; `curator.open_index` documents the parameters.

    A cache that cannot be written is done without, unless it is required.
    A store is read with what opens it, as its publishers do.

    Raises:
        InputError: the location is none that can be read, a key is none, or more keys have to sign
            than are given.
        HostError: the cache is required and does not work.
        RefusedError: there is no index.
        IntegrityError: what is there is not to be believed; the subclass says why.
        TemporaryError: it does not answer, and there is no copy of before.
    """
    trusted = _trusted(keys, threshold)
    origin = Nowhere() if offline else _origin(location, timeout_s)
    try:
        from curator.reader._reader import IndexReader  # noqa: PLC0415 - loads the index's models

        memory = Cache(cache, is_required=is_cache_required)
        reader = IndexReader(origin, memory, trusted=trusted, threshold=threshold)
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
    if cache is not None and not _trusted(keys, threshold):
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


def _trusted(keys: Sequence[bytes | str | Path], threshold: int) -> tuple[SigningKey, ...]:
    """Return the keys that are given, each once.

    Raises:
        InputError: a key is none, or more of them have to sign than there are.
    """
    found = {key.keyid: key for key in map(_key, keys)}
    if 1 <= threshold <= max(1, len(found)):
        return tuple(found.values())
    message = f"{threshold} of {len(found)} given keys cannot sign"
    hint = "without any keys, those of the index have to sign, by its own threshold"
    raise InputError(Diagnostic(code="threshold", message=message, hint=hint))


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


def read_documents(
    location: str | Store, paths: Iterable[str], *, timeout_s: float = 30.0
) -> Iterator[tuple[str, bytes]]:
    """Yield the documents that there are of some paths, as they stand beside the index.

    One that is named by its hash is held against that; the others nothing here vouches for.

    Raises:
        MixedError: a document does not have the hash that it is named by.
        TemporaryError: the place does not answer.
    """
    origin = _origin(location, timeout_s)
    try:
        for path in paths:
            found = origin.get(path)
            if found is not None and found.data is not None:
                name = Path(path).stem
                if len(name) == HASH_DIGITS and name != hex_of(sha256(found.data)):
                    raise MixedError(f"{path} does not have that hash")
                yield path, found.data
    finally:
        origin.close()
