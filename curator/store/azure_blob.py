"""A store in a container of Azure Blob Storage; the tests' one is Azurite.

- `add` is exclusive by `If-None-Match: *`, `replace` conditional by `If-Match`. The SDK's own
  retries are off: after a lost answer they report a conflict with the very write that did land.
  Here a condition that did not hold is decided by what stands there.
- A mutable document carries the ids of its last writes. A writer whose answer was lost finds its
  own among them, even when others have written since.
- Immutable documents are stored gzip-encoded where that is smaller, and may be cached for ever;
  mutable ones are plain, and readers ask each time whether they changed.
- No error, `repr` or log line contains what opens the account: the SDK's errors quote addresses
  whole, so none of them is chained.
- Safe to use from several threads.

Source: learn.microsoft.com/rest/api/storageservices: put-blob, get-blob,
specifying-conditional-headers-for-blob-service-operations, blob-service-error-codes.
"""

from __future__ import annotations

import gzip
import itertools
import logging
import secrets
import time
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import ContentSettings

from curator.errors import (
    ConflictError,
    Diagnostic,
    HostError,
    InputError,
    IntegrityError,
    TemporaryError,
)
from curator.ports import Blob
from curator.store._client import container_client
from curator.store._failure import NO_CONTAINER, STRANGE, Failure, failure_of
from curator.store.directory import _PATH, _PREFIX, MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from azure.storage.blob import ContainerClient

    from curator.store._location import AzureLocation

log = logging.getLogger(__name__)

DEADLINE_S: Final = 60.0
CONNECT_S: Final = 10.0
READ_S: Final = 20.0
PAGE_SIZE: Final = 5000
# As many writes as may pass a writer that waits for its answer.
WRITES: Final = 64

_WRITES = "writes"
_IMMUTABLE = "public, max-age=31536000, immutable"
_MUTABLE = "no-cache"
_TYPES = {
    "json": "application/json",
    "xml": "application/atom+xml",
    "svg": "image/svg+xml",
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
}
_T = TypeVar("_T")
# Names, and where the listing goes on.
_Page = tuple[tuple[str, ...], str | None]


class AzureBlobStore:
    """Index documents as blobs of a container, below a prefix.

    Every call ends its attempts `deadline_s` after it began.
    """

    def __init__(
        self,
        container: ContainerClient,
        place: AzureLocation,
        *,
        deadline_s: float = DEADLINE_S,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self._container = container
        self._place = place
        self._deadline_s = deadline_s
        self._page_size = page_size

    def __repr__(self) -> str:
        return f"AzureBlobStore({str(self._place)!r})"

    def read(self, path: str) -> Blob | None:
        """Return the document, or None.

        Raises:
            InputError: the path is not relative and plain.
            IntegrityError: it is bigger than a document may be, or not encoded as we do.
        """
        return self._read(_checked(path), self._deadline())

    def add(self, path: str, data: bytes) -> None:
        """Create an immutable document durably; the same bytes again are fine.

        Raises:
            ConflictError: other bytes stand there.
            TemporaryError: whether it was written is not known; the same call again finds out.
            HostError: there is no container, and none can be created.
        """
        deadline = self._deadline()
        stored, encoding = _encoded(_bounded(_checked(path), data))
        settings = _settings(path, _IMMUTABLE, encoding)
        answer = self._put(path, stored, deadline, settings, MatchConditions.IfMissing)
        if not isinstance(answer, Failure):
            return
        if not answer.unmet:
            raise answer.error(f"add {path}", str(self._place))
        found = self._read(path, deadline)
        if found is None:
            raise TemporaryError(f"cannot add {path}: it was there a moment ago: try again")
        if found.data != data:
            raise ConflictError(f"{path}: stands there with other bytes")

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        """Replace a mutable document if it is still the expected one; return the new etag.

        Raises:
            ConflictError: the document has another etag (None expects that there is none).
            TemporaryError: whether it was written is not known; read it to find out.
            HostError: there is no container, and none can be created.
        """
        deadline = self._deadline()
        settings = _settings(path, _MUTABLE)
        write = secrets.token_hex(8)
        earlier = self._earlier(_checked(path), expected_etag, deadline)
        answer = self._put(
            path,
            _bounded(path, data),
            deadline,
            settings,
            MatchConditions.IfNotModified if expected_etag else MatchConditions.IfMissing,
            etag=expected_etag,
            metadata={_WRITES: ",".join((write, *earlier)[:WRITES])},
        )
        if not isinstance(answer, Failure):
            return answer
        if not answer.unmet:
            raise answer.error(f"replace {path}", str(self._place))
        etag, writes = self._writes(path, deadline)
        if write not in writes:
            raise ConflictError(f"{path}: expected {expected_etag}, found {etag}")
        # It landed. Where others have written since, our own etag is gone: nothing has this one.
        return etag if etag and writes[0] == write else f'"{write}"'

    def list(self, prefix: str) -> tuple[str, ...]:
        """Return the paths that start with `prefix`, sorted; other names are not documents."""
        if not _PREFIX.fullmatch(prefix):
            raise InputError(Diagnostic(code="path", message=f"not a store path: {prefix!r}"))
        deadline, doing = self._deadline(), f"list {self._place}"
        found: tuple[str, ...] = ()
        token: str | None = ""
        while token is not None:
            page = self._repeat(doing, deadline, self._page(prefix, token))
            if isinstance(page, Failure):
                if page.absent:
                    return ()
                raise page.error(doing, str(self._place))
            names, token = page
            found += names
        return tuple(sorted(path for path in found if _PATH.fullmatch(path)))

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:  # noqa: ARG002 - the port's
        """Go on at once: a container gives no turns."""
        yield

    def _deadline(self) -> float:
        return time.monotonic() + self._deadline_s

    def _name(self, path: str) -> str:
        return f"{self._place.prefix}/{path}" if self._place.prefix else path

    def _read(self, path: str, deadline: float) -> Blob | None:
        client = self._container.get_blob_client(self._name(path))

        def attempt(read_s: float) -> tuple[bytes, str, str]:
            stream = client.download_blob(connection_timeout=CONNECT_S, read_timeout=read_s)
            if stream.properties.size > MAX_BYTES:
                raise _too_big(path, stream.properties.size)
            encoding = stream.properties.content_settings.content_encoding or ""
            return stream.readall(), encoding, stream.properties.etag

        answer = self._repeat(f"read {path}", deadline, attempt)
        if isinstance(answer, Failure):
            if answer.absent:
                return None
            raise answer.error(f"read {path}", str(self._place))
        stored, encoding, etag = answer
        return Blob(data=_decoded(path, stored, encoding), etag=etag)

    def _writes(self, path: str, deadline: float) -> tuple[str | None, tuple[str, ...]]:
        """Return a document's etag and the ids of its last writes, the latest first."""
        client = self._container.get_blob_client(self._name(path))

        def attempt(read_s: float) -> tuple[str, dict[str, str]]:
            found = client.get_blob_properties(connection_timeout=CONNECT_S, read_timeout=read_s)
            return str(found.etag), dict(found.metadata or {})

        answer = self._repeat(f"look at {path}", deadline, attempt)
        if isinstance(answer, Failure):
            if answer.absent:
                return None, ()
            raise answer.error(f"look at {path}", str(self._place))
        etag, metadata = answer
        known = {name.lower(): value for name, value in metadata.items()}
        return etag, tuple(filter(None, known.get(_WRITES, "").split(",")))

    def _earlier(self, path: str, expected_etag: str | None, deadline: float) -> tuple[str, ...]:
        """Return the ids of the writes before ours, which stay known for their writers' sake."""
        if expected_etag is None:
            return ()
        etag, writes = self._writes(path, deadline)
        if etag != expected_etag:
            raise ConflictError(f"{path}: expected {expected_etag}, found {etag}")
        return writes

    def _put(  # noqa: PLR0913 - a write has this many parts
        self,
        path: str,
        data: bytes,
        deadline: float,
        settings: ContentSettings,
        condition: MatchConditions,
        *,
        etag: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> str | Failure:
        """Write a blob under a condition; return its etag. The first write makes the container."""
        client = self._container.get_blob_client(self._name(path))
        conditions: dict[str, Any] = {"match_condition": condition}
        if etag is not None:
            conditions["etag"] = etag

        def attempt(read_s: float) -> str:
            answer = client.upload_blob(
                data,
                overwrite=True,
                content_settings=settings,
                metadata=metadata,
                connection_timeout=CONNECT_S,
                read_timeout=read_s,
                **conditions,
            )
            return str(answer["etag"])

        doing = f"write {path}"
        answer = self._repeat(doing, deadline, attempt)
        if isinstance(answer, Failure) and answer.code == NO_CONTAINER:
            self._create(deadline)
            answer = self._repeat(doing, deadline, attempt)
        return answer

    def _create(self, deadline: float) -> None:
        name = self._place.container

        def attempt(read_s: float) -> None:
            self._container.create_container(connection_timeout=CONNECT_S, read_timeout=read_s)

        answer = self._repeat(f"create the container {name}", deadline, attempt)
        if isinstance(answer, Failure) and answer.code != "ContainerAlreadyExists":
            raise HostError(
                f"there is no container {name}, and what opens {self._place} may not create it "
                f"({answer.told}): az storage container create --account-name "
                f"{self._place.account} --name {name}"
            )

    def _page(self, prefix: str, token: str) -> Callable[[float], _Page]:
        """Return what reads one page of names; an empty token is the first page's."""
        cut = len(self._name(""))

        def attempt(read_s: float) -> _Page:
            pages: Any = self._container.list_blob_names(
                name_starts_with=self._name(prefix),
                results_per_page=self._page_size,
                connection_timeout=CONNECT_S,
                read_timeout=read_s,
            ).by_page(token or None)
            names = tuple(str(name)[cut:] for name in next(pages))
            return names, pages.continuation_token or None

        return attempt

    def _repeat(self, doing: str, deadline: float, attempt: Callable[[float], _T]) -> _T | Failure:
        """Call again what fails for a passing reason; return any other failure.

        Raises:
            TemporaryError: it still fails, or the service asks to wait longer than we may.
        """
        for number in itertools.count(1):
            left_s = deadline - time.monotonic()
            try:
                return attempt(min(READ_S, max(1.0, left_s)))
            except AzureError as error:
                failure = failure_of(error)
            except ValueError:
                failure = STRANGE
            wait_s = failure.wait_s(number)
            if not failure.passing:
                return failure
            if time.monotonic() + wait_s > deadline:
                break
            log.info("%s: %s, again in %.1f s", doing, failure.told, wait_s)
            time.sleep(wait_s)
        raise failure.error(doing, str(self._place))


def open_container(
    place: AzureLocation,
    *,
    certificates: str | None = None,
    deadline_s: float = DEADLINE_S,
    page_size: int = PAGE_SIZE,
) -> AzureBlobStore:
    """Return the store at a location; nothing is asked yet.

    `certificates` is a file of certificates to trust instead of the usual ones.
    """
    container = container_client(place, certificates, limit_bytes=MAX_BYTES)
    return AzureBlobStore(container, place, deadline_s=deadline_s, page_size=page_size)


def _settings(path: str, cache_control: str, encoding: str | None = None) -> ContentSettings:
    return ContentSettings(
        content_type=_TYPES.get(path.rpartition(".")[2], "application/octet-stream"),
        content_encoding=encoding,
        cache_control=cache_control,
    )


def _checked(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise InputError(Diagnostic(code="path", message=f"not a store path: {path!r}"))
    return path


def _bounded(path: str, data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise _too_big(path, len(data))
    return data


def _too_big(path: str, size: int) -> IntegrityError:
    return IntegrityError(f"{path}: {size} bytes, more than any document has")


def _encoded(data: bytes) -> tuple[bytes, str | None]:
    """Return how bytes are stored, and the encoding's name if that is smaller."""
    small = gzip.compress(data, mtime=0)
    return (small, "gzip") if len(small) < len(data) else (data, None)


def _decoded(path: str, stored: bytes, encoding: str) -> bytes:
    if encoding.lower() in {"", "identity"}:
        return stored
    if encoding.lower() != "gzip":
        raise IntegrityError(f"{path}: encoded as {encoding[:40]!r}, only gzip is right")
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        data = decoder.decompress(stored, MAX_BYTES + 1)
    except zlib.error as error:
        raise IntegrityError(f"{path}: what is stored is not gzip: {error}") from error
    if len(data) > MAX_BYTES:
        raise _too_big(path, len(data))
    if not decoder.eof or decoder.unused_data:
        raise IntegrityError(f"{path}: what is stored is cut off, or more than one document")
    return data
