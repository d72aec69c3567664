"""Documents over HTTP: conditional, bounded in bytes and time, and never led astray.

Source: RFC 9110 (conditional requests, Retry-After), RFC 9111 (ETag).
"""

from __future__ import annotations

import contextlib
import os
import random
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urljoin, urlsplit

import urllib3

from curator.errors import Diagnostic, InputError, IntegrityError, RefusedError, TemporaryError
from curator.index import MAX_DOCUMENT_BYTES
from curator.reader._values import Fetched

if TYPE_CHECKING:
    from types import TracebackType

RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECTED: Final = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS: Final = 3
PIECE: Final = 64 * 1024
BACKOFF_S, BACKOFF_CAP_S = 0.1, 5.0
CONNECT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Passing(Exception):  # noqa: N818 - it may pass, and then it is no error
    """Something that may be over in a moment; `wait_s` is what the server asks for."""

    told: str
    wait_s: float = 0.0


class WebOrigin:
    """The documents below an `https://` address; `http://` is for this machine alone."""

    def __init__(self, base: str, timeout_s: float) -> None:
        parts = urlsplit(base)
        if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
            message = f"{parts.scheme}://{parts.netloc}: an index is read over https"
            raise InputError(Diagnostic(code="location", message=message))
        self._base = base if base.endswith("/") or parts.query else f"{base}/"
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(
            maxsize=4,
            retries=False,
            ssl_context=ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def get(self, path: str, etag: str | None = None) -> Fetched | None:
        """Return a document, that it is unchanged, or None where there is none.

        Raises:
            TemporaryError: no answer within the time.
            RefusedError: the server says no.
            IntegrityError: the answer is larger than any document, or leads elsewhere.
        """
        deadline, number = time.monotonic() + self._timeout_s, 0
        url = self._address(path)
        while True:
            number += 1
            try:
                return self._attempt(url, etag, deadline)
            except _Passing as failure:
                pause_s = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2**number))  # noqa: S311 - jitter
                pause_s += failure.wait_s
                if time.monotonic() + pause_s > deadline:
                    raise TemporaryError(f"{_shown(url)}: {failure.told}") from failure
                time.sleep(pause_s)

    def _address(self, path: str) -> str:
        parts = urlsplit(self._base)
        directory = parts.path if parts.path.endswith("/") else f"{parts.path}/"
        return parts._replace(path=f"{directory}{path}").geturl()

    def _attempt(self, url: str, etag: str | None, deadline: float) -> Fetched | None:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(url, etag, deadline)
            try:
                if response.status not in REDIRECTED:
                    return _answer(response, url, deadline)
                url = _redirected(url, response.headers.get("Location", ""))
            finally:
                response.close()
                response.release_conn()
        raise IntegrityError(f"{_shown(url)}: redirected more than {MAX_REDIRECTS} times")

    def _send(self, url: str, etag: str | None, deadline: float) -> urllib3.BaseHTTPResponse:
        headers = {"Accept-Encoding": "gzip"} | ({"If-None-Match": etag} if etag else {})
        left_s = max(0.05, deadline - time.monotonic())
        timeout = urllib3.Timeout(connect=min(CONNECT_S, left_s), read=left_s)
        try:
            return self._pool.request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                redirect=False,
                timeout=timeout,
            )
        except urllib3.exceptions.SSLError as error:
            raise RefusedError(
                f"{_shown(url)}: {error}: for a private CA set SSL_CERT_FILE to it"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise _Passing(f"{type(error).__name__}: {str(error)[:200]}") from error


def _answer(response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> Fetched | None:
    status = response.status
    if status == 304:  # noqa: PLR2004
        return Fetched(data=None, etag=response.headers.get("ETag"))
    if status == 404:  # noqa: PLR2004
        return None
    if status in RETRIED:
        raise _Passing(f"status {status}", _retry_after(response.headers.get("Retry-After", "")))
    if status != 200:  # noqa: PLR2004
        raise RefusedError(f"{_shown(url)}: the server answers {status}")
    return Fetched(data=_body(response, url, deadline), etag=response.headers.get("ETag"))


def _body(response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
    """Read a body in pieces: no larger than a document, and no longer than the time."""
    found = bytearray()
    try:
        while piece := response.read1(PIECE, decode_content=True):
            found += piece
            if len(found) > MAX_DOCUMENT_BYTES:
                raise IntegrityError(
                    f"{_shown(url)}: more than {MAX_DOCUMENT_BYTES} bytes, no document has that"
                )
            if time.monotonic() > deadline:
                raise _Passing("the answer does not end")
    except urllib3.exceptions.DecodeError as error:
        raise IntegrityError(f"{_shown(url)}: {str(error)[:200]}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Passing(f"{type(error).__name__}: {str(error)[:200]}") from error
    return bytes(found)


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


def _shown(url: str) -> str:
    """Return an address without its query, which may be a secret."""
    return urlsplit(url)._replace(query="", fragment="").geturl()[:300]


def _retry_after(text: str) -> float:
    """Return how long a server asks to wait, in seconds: never ask before that."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
