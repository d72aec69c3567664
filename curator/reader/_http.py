"""Documents over HTTP: conditional, bounded in bytes and time, and never led astray.

Source: RFC 9110 (conditional requests, Retry-After), RFC 9111 (ETag).
"""

from __future__ import annotations

import contextlib
import random
import ssl
import time
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import urllib3

from curator import wire
from curator.errors import Diagnostic, InputError, IntegrityError, RefusedError, TemporaryError
from curator.places import MAX_DOCUMENT_BYTES
from curator.reader._values import Fetched

if TYPE_CHECKING:
    from urllib.parse import SplitResult

PASSING: Final = frozenset({408, 425, 429})
SERVER_FAULT: Final = 500
REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS: Final = 3
BACKOFF_S, BACKOFF_CAP_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class _Passing(Exception):  # noqa: N818 - it may pass, and then it is no error
    """Something that may be over in a moment; `wait_s` is what the server asks for.

    `is_absent` says that no server was there at all.
    """

    told: str
    wait_s: float = 0.0
    is_absent: bool = False


@dataclass(frozen=True, slots=True)
class _Until:
    """A moment on the monotonic clock."""

    ends: float

    @property
    def left_s(self) -> float:
        return self.ends - time.monotonic()


class WebOrigin:
    """The documents below an `https://` address; `http://` is for this machine alone.

    Raises:
        InputError: it is no such address.
    """

    def __init__(self, base: str, timeout_s: float) -> None:
        self._base = _address(base)
        self._timeout_s = timeout_s
        self._wire = wire.Wire()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def get(
        self, path: str, etag: str | None = None, *, within_s: float | None = None
    ) -> Fetched | None:
        """Return a document, that it is unchanged, or None where there is none.

        Raises:
            TemporaryError: no answer within the time.
            RefusedError: the server says no.
            IntegrityError: the answer is larger than any document, or leads elsewhere.
        """
        patience_s = self._timeout_s if within_s is None else min(within_s, self._timeout_s)
        until, number = _Until(time.monotonic() + patience_s), 0
        base = self._base.path if self._base.path.endswith("/") else f"{self._base.path}/"
        url = self._base._replace(path=f"{base}{path}").geturl()
        while True:
            number += 1
            try:
                return self._attempt(url, etag, until)
            except _Passing as failure:
                pause_s = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2**number))  # noqa: S311 - jitter
                pause_s += failure.wait_s
                if pause_s > until.left_s or (failure.is_absent and within_s is not None):
                    raise TemporaryError(f"{_shown(url)}: {failure.told}") from failure
                time.sleep(pause_s)

    def _attempt(self, url: str, etag: str | None, until: _Until) -> Fetched | None:
        for hop in range(MAX_REDIRECTS + 1):
            try:
                response = self._send(url, etag, until)
            except InputError as error:
                if not hop:
                    raise
                raise IntegrityError(f"a redirect leads to {_shown(url)}: {error}") from error
            if response.status not in REDIRECTED:
                return _answer(response, url)
            wire.close(response)
            url = _redirected(url, response.headers.get("Location", ""))
        raise IntegrityError(f"{_shown(url)}: redirected more than {MAX_REDIRECTS} times")

    def _send(self, url: str, etag: str | None, until: _Until) -> urllib3.BaseHTTPResponse:
        headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": etag} if etag else {})
        try:
            return self._wire.send("GET", url, headers, None, until)
        except urllib3.exceptions.SSLError as error:
            if not isinstance(error.args[0] if error.args else None, ssl.SSLCertVerificationError):
                raise _Passing(_told(error)) from error
            raise RefusedError(
                f"{_shown(url)}: {error}: for a private CA set SSL_CERT_FILE to it"
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Passing(_told(error), is_absent=_is_absent(error)) from error


def _is_absent(error: Exception) -> bool:
    """Say whether nobody is there: a name without address, or a port without a server."""
    if isinstance(error, urllib3.exceptions.ProxyError):
        return _is_absent(error.original_error)
    return isinstance(error, urllib3.exceptions.NewConnectionError)


def _address(base: str) -> SplitResult:
    try:
        parts = urlsplit(base)
        fine = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise _no_place(f"not an address ({error})") from error
    if not fine:
        raise _no_place("an address without a host")
    if parts.username is not None:
        raise _no_place("an address with a login in it")
    if parts.scheme != "https" and not wire.is_loopback(parts.netloc):
        raise _no_place(f"{parts.scheme}://{parts.netloc}: an index is read over https")
    return parts


def _no_place(message: str) -> InputError:
    hint = "name an https:// address or a directory"
    return InputError(Diagnostic(code="location", message=message, hint=hint))


def _answer(response: urllib3.BaseHTTPResponse, url: str) -> Fetched | None:
    status, etag = response.status, response.headers.get("ETag")
    if status == 200:  # noqa: PLR2004
        return Fetched(data=_body(response, url), etag=etag)
    if status == 304:  # noqa: PLR2004
        _body(response, url)  # there is none: then the connection is used again
        return Fetched(data=None, etag=etag)
    wire.close(response)
    if status == 404:  # noqa: PLR2004
        return None
    if status in PASSING or status >= SERVER_FAULT:
        raise _Passing(f"status {status}", _retry_after(response.headers.get("Retry-After", "")))
    raise RefusedError(f"{_shown(url)}: the server answers {status}")


def _body(response: urllib3.BaseHTTPResponse, url: str) -> bytes:
    """Read a body: no larger than a document, and decoded no larger either."""
    try:
        data = wire.read(response, MAX_DOCUMENT_BYTES + 1)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Passing(_told(error)) from error
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding == "gzip" and len(data) <= MAX_DOCUMENT_BYTES:
        data = _unpacked(data, url)
    elif encoding not in {"", "identity", "gzip"}:
        raise IntegrityError(f"{_shown(url)}: encoded as {encoding[:40]!r}, only gzip is right")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise IntegrityError(
            f"{_shown(url)}: more than {MAX_DOCUMENT_BYTES} bytes, no document has that"
        )
    return data


def _unpacked(data: bytes, url: str) -> bytes:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = decoder.decompress(data, MAX_DOCUMENT_BYTES + 1)
    except zlib.error as error:
        raise IntegrityError(f"{_shown(url)}: what came is not gzip: {error}") from error
    if len(found) <= MAX_DOCUMENT_BYTES and (not decoder.eof or decoder.unused_data):
        raise IntegrityError(f"{_shown(url)}: what came is cut off, or more than one document")
    return found


def _redirected(url: str, location: str) -> str:
    """Return where a redirect leads: https, or the same server of this machine."""
    try:
        old, new = urlsplit(url), urlsplit(urljoin(url, location))
        _ = new.port
    except ValueError as error:
        raise IntegrityError(f"{_shown(url)} redirects to {location[:200]!r}") from error
    if new.scheme == "https" or (new.scheme, new.netloc) == (old.scheme, old.netloc):
        return new.geturl()
    raise IntegrityError(f"{_shown(url)} redirects to {_shown(new.geturl())}, which is not https")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _shown(url: str) -> str:
    """Return an address without its query and login, which may be secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()[:300]


def _retry_after(text: str) -> float:
    """Return how long a server asks to wait, in seconds: never ask before that."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0
