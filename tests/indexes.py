"""A package index with wheels made on the spot; it can ask for a password, or fail."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from curator.lockfile import LockedWheel

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Wheel:
    """A pure wheel of one module, with a console script of its own name."""

    name: str
    version: str = "1.0"
    data: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _archive(self.name, self.version))

    @property
    def file(self) -> str:
        """The wheel's file name."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def locked(self, *, size_bytes: int | None = None) -> LockedWheel:
        """Return the wheel as a lock has it; a lock is believed what it says of the size."""
        return LockedWheel(
            name=self.name,
            version=self.version,
            sha256=hashlib.sha256(self.data).hexdigest(),
            size_bytes=len(self.data) if size_bytes is None else size_bytes,
        )


def _archive(name: str, version: str) -> bytes:
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"version = {version!r}\n\n\ndef main():\n    print(version)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    record = "".join(f"{path},{_hash(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass
class Index:
    """A running index. `login` (user:password) is asked for; `status` is answered to everything."""

    wheels: tuple[Wheel, ...]
    login: str | None = None
    status: int = 200
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The index's URL, without the login."""
        return f"http://127.0.0.1:{self.port}/simple"

    @property
    def address_with_login(self) -> str:
        """The index's URL, with the login."""
        return f"http://{self.login}@127.0.0.1:{self.port}/simple"

    def answer(self, path: str, authorization: str | None) -> tuple[int, str, bytes]:
        """Return status, content type and body for a GET."""
        self.asked.append(path)
        if self.login:
            expected = "Basic " + base64.b64encode(self.login.encode()).decode()
            if authorization != expected:
                return 401, "text/plain", b"who are you?"
        if self.status != 200:
            return self.status, "text/plain", b"not now"
        if path.startswith("/simple/"):
            return self._page(path.split("/")[2])
        found = next((wheel.data for wheel in self.wheels if path == f"/files/{wheel.file}"), None)
        return (404, "text/plain", b"") if found is None else (200, "application/zip", found)

    def _page(self, name: str) -> tuple[int, str, bytes]:
        links = [
            f'<a href="/files/{wheel.file}">{wheel.file}</a>'
            for wheel in self.wheels
            if wheel.name == name
        ]
        text = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        return (200 if links else 404), "text/html", text.encode()


@contextmanager
def serving(index: Index) -> Iterator[Index]:
    """Run an index on a loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = index.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="wheels"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_error(405)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield index
        finally:
            server.shutdown()
