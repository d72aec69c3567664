"""Servers of a test's own: a function that answers, or a directory, as bad as a test wants it.

- `Listening` starts and stops each of them, those of `tests.faults` too.
- A `Site` knows ETags, 304, and gzip where it is accepted; `plan` may answer in its place, and
  everything is counted.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

from tests.wire import Handler, Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

POLL_S = 0.02  # how soon a server sees that it is to stop


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer; `chunks` are sent one by one, with a pause before each."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterable[bytes] = ()
    pause_s: float = 0.0
    reset: bool = False


class Listening:
    """Every request at a port of `host` is answered by `serve`; a context manager."""

    def __init__(
        self,
        serve: Callable[[Handler], None],
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = Server((host, 0), partial(Handler, serve))
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def authority(self) -> str:
        """Where it listens, as `host:port`."""
        host, port, *_ = self._server.server_address
        return f"{host!s}:{port}"

    @property
    def connections(self) -> int:
        """How many connections were ever made to it."""
        return self._server.connections


@contextlib.contextmanager
def served(serve: Callable[[Handler], None]) -> Iterator[str]:
    """Answer every request with whatever bytes a function writes; one for each connection."""

    def once(handler: Handler) -> None:
        handler.close_connection = True
        serve(handler)

    with Listening(once) as server:
        yield f"http://{server.authority}/index/"


class Site(Listening):
    """The directory at `root`, served below `/index/`."""

    def __init__(self, root: Path, plan: Callable[[str], Reply | None] | None = None) -> None:
        super().__init__(self._serve)
        self.root = root
        self.plan = plan
        self.asked: list[tuple[str, int]] = []
        self.sent = 0

    @property
    def address(self) -> str:
        """Where it is served."""
        return f"http://{self.authority}/index/"

    def forget(self) -> None:
        """Count from nothing."""
        self.asked, self.sent = [], 0

    def _serve(self, handler: Handler) -> None:
        path = handler.path.removeprefix("/index/").partition("?")[0]
        reply = (self.plan(path) if self.plan else None) or self._file(path, handler)
        self.asked.append((path, reply.status))
        if reply.reset:
            handler.reset()
            return
        handler.reply(reply.status, reply.headers.items(), self._counted(reply))

    def _counted(self, reply: Reply) -> Iterable[bytes]:
        for chunk in reply.chunks:
            time.sleep(reply.pause_s)
            self.sent += len(chunk)
            yield chunk

    def _file(self, path: str, handler: Handler) -> Reply:
        try:
            data = (self.root / path).read_bytes()
        except OSError:
            return Reply(status=404, headers={"Content-Length": "0"})
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if handler.headers.get("If-None-Match") == etag:
            return Reply(status=304, headers={"ETag": etag})
        headers = {"ETag": etag}
        if "gzip" in handler.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Reply(headers={**headers, "Content-Length": str(len(data))}, chunks=[data])
