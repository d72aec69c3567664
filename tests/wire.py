"""HTTP on the wire, for servers that misbehave: streamed both ways, and broken off at will."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

CHUNK = 64 * 1024


class Server(ThreadingHTTPServer):
    """A server whose threads end with the process."""

    daemon_threads = True
    request_queue_size = 128
    connections = 0

    def get_request(self) -> tuple[Any, Any]:
        """Count connections."""
        self.connections += 1
        return super().get_request()

    def handle_error(self, *connection: Any) -> None:
        """Tell what went wrong, unless a client just went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*connection)


class Handler(BaseHTTPRequestHandler):
    """One connection: `serve` answers each of its requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: 40 ms between them otherwise
    # Docker tries TLS first, and knows by a status line that it is not spoken here.
    default_request_version = "HTTP/1.0"

    def __init__(self, serve: Callable[[Handler], None], *arguments: Any) -> None:
        self._answer = serve
        super().__init__(*arguments)

    def _serve(self) -> None:
        self._answer(self)

    # http.server looks these names up.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = _serve  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: the exchanges are the record."""

    def reply(
        self, status: int, headers: Iterable[tuple[str, str]], chunks: Iterable[bytes]
    ) -> None:
        """Send an answer."""
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        for chunk in chunks if self.command != "HEAD" else ():
            self.wfile.write(chunk)

    def reset(self) -> None:
        """Break the connection, so that the other side sees a reset and not an end."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.rfile.close()
        self.connection.close()


class Body:
    """A request's body as its chunks, counted; sized by Content-Length, or chunked."""

    def __init__(self, handler: Handler) -> None:
        self.count = 0
        self._file = handler.rfile
        self._left = int(handler.headers.get("Content-Length") or 0)
        self._chunked = handler.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._encoded() if self._chunked else self._plain():
            self.count += len(chunk)
            yield chunk

    def drain(self) -> bytes:
        """Read what is left; return the beginning of it."""
        chunks = iter(self)
        beginning = b"".join(itertools.islice(chunks, 16))
        for _ in chunks:
            pass
        return beginning

    def beginning(self) -> bytes:
        """Read half of a sized body, and leave the rest."""
        half = self._left // 2
        data = self._file.read(half)
        self._left -= len(data)
        self.count += len(data)
        return data

    def _plain(self) -> Iterator[bytes]:
        while self._left:
            chunk = self._file.read(min(CHUNK, self._left))
            if not chunk:
                raise ConnectionError("the client went away")
            self._left -= len(chunk)
            yield chunk

    def _encoded(self) -> Iterator[bytes]:
        """Give a chunked body as it is, with its frames."""
        while True:
            line = self._file.readline(CHUNK)
            size = int(line.split(b";")[0], 16)
            yield line + self._file.read(size) + self._file.readline(CHUNK)
            if size == 0:
                return


def send_head(connection: http.client.HTTPConnection, handler: Handler, path: str) -> None:
    """Ask upstream for a path, with the headers that a client sent."""
    connection.putrequest(handler.command, path, skip_host=True, skip_accept_encoding=True)
    for name, value in handler.headers.items():
        if name.lower() != "connection":
            connection.putheader(name, value)
    connection.endheaders()


def identity(address: str, directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for an address; return what a server needs and what a client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate, private = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(pem))
    private.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context, certificate
