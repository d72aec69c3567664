"""HTTP as it is on the wire: connections that are kept, and bytes that come before a deadline.

- The deadline of an answer counts for its headers and its body alike, however slowly they drip:
  every read from the socket waits for what is left of it at most.
- Nothing is decoded: what is hashed is what came.
- Certificates are loaded when a server with TLS is asked for the first time.
- HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment hold, except for loopback registries.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import ssl
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3

from curator.errors import Diagnostic, HostError, InputError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping

CONNECT_S: Final = 10.0
STALL_S: Final = 120.0
PIECE: Final = 64 * 1024
CONNECTIONS: Final = 16
_GONE: Final = "the deadline has passed"


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is on this machine, where docker too speaks plain HTTP."""
    name = urlsplit(f"//{host}").hostname or ""
    with contextlib.suppress(ValueError):
        return ip_address(name).is_loopback
    return name == "localhost"


class Deadline(Protocol):
    """A moment by which an answer has to be there, body and all."""

    @property
    def left_s(self) -> float:
        """How many seconds are left."""
        ...


class Wire:
    """Connections to servers; safe to use from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._managers: dict[tuple[str, str | None], urllib3.PoolManager] = {}

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        deadline: Deadline,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and return its answer, whose body is still to be read or closed.

        Raises:
            urllib3.exceptions.HTTPError: no answer came.
            InputError: no server can have this address.
            HostError: this machine names a proxy or certificates that cannot be used.
        """
        left_s = deadline.left_s
        if left_s <= 0:
            raise urllib3.exceptions.TimeoutError(_GONE)
        try:
            return self._manager(url).request(
                method,
                url,
                headers=dict(headers),
                body=body,
                timeout=urllib3.Timeout(connect=min(CONNECT_S, left_s), read=left_s),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except urllib3.exceptions.LocationValueError as error:
            message = f"no address of a server: {urlsplit(url).netloc.rpartition('@')[2][:200]!r}"
            raise InputError(Diagnostic(code="address", message=message)) from error

    def close(self) -> None:
        """Close every connection."""
        with self._guard:
            for manager in self._managers.values():
                manager.clear()

    def _manager(self, url: str) -> urllib3.PoolManager:
        key = (urlsplit(url).scheme, _proxy(url))
        with self._guard:
            if key not in self._managers:
                self._managers[key] = _new_manager(*key)
            return self._managers[key]


def pieces(response: urllib3.BaseHTTPResponse, count: int) -> Iterator[bytes]:
    """Give up to `count` bytes of a body as they come; afterwards nothing of it is left open.

    Raises:
        urllib3.exceptions.HTTPError: the body breaks off, or takes longer than its deadline.
    """
    left = count
    try:
        while left and (piece := response.read1(min(PIECE, left))):
            left -= len(piece)
            yield piece
    finally:
        close(response)


def read(response: urllib3.BaseHTTPResponse, count: int) -> bytes:
    """Return up to `count` bytes of a body."""
    return b"".join(pieces(response, count))


def close(response: urllib3.BaseHTTPResponse) -> None:
    """Let a connection be used again if its answer was read to the end; else close it."""
    if not response.closed:
        response.close()
    response.release_conn()


class _TimedSocket(io.RawIOBase):
    """What comes from a socket until a moment."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._socket = sock
        self._ends = time.monotonic() + seconds
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a buffer has no older type
        left_s = self._ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(_GONE)
        self._socket.settimeout(min(left_s, STALL_S))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Timed:
    """A socket for `http.client`, which takes nothing from it but a file."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        # The timeout that urllib3 sets right before it reads an answer is all that is left.
        return io.BufferedReader(_TimedSocket(self._socket, self._socket.gettimeout() or STALL_S))


class _Response(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        timed: Any = _Timed(sock)
        super().__init__(timed, debuglevel, method, url)


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _new_manager(scheme: str, proxy: str | None) -> urllib3.PoolManager:
    options: dict[str, Any] = {"maxsize": CONNECTIONS}
    if scheme == "https":
        options["ssl_context"] = _trusting(os.environ.get("SSL_CERT_FILE") or None)
    manager = _proxied(proxy, options) if proxy else urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def _trusting(bundle: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one
        told = f"SSL_CERT_FILE={bundle}" if bundle else "this machine's certificates"
        raise HostError(f"{told} cannot be loaded: {error}") from error


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    parts = urlsplit(proxy)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


def _proxy(url: str) -> str | None:
    """Return the proxy that this environment has for an address.

    Raises:
        HostError: it is none that can be used.
    """
    parts = urlsplit(url)
    found = getproxies_environment().get(parts.scheme)
    if not found or is_loopback(parts.netloc) or proxy_bypass(parts.netloc):
        return None
    proxy = found if "://" in found else f"http://{found}"
    if not _is_proxy(proxy):
        shown = proxy.rpartition("@")[2][:200]  # what stands before that is a login
        name = f"{parts.scheme.upper()}_PROXY"
        raise HostError(f"{name} is {shown!r}: a proxy is http://HOST:PORT or https://HOST:PORT")
    return proxy


def _is_proxy(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
