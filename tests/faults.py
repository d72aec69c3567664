"""A registry's bad days, on demand: an HTTP proxy that fails as planned.

- A fault depends on the request and its number alone, so that a seeded run can be replayed.
- What the plan leaves alone reaches the registry behind it, streamed both ways, and everything
  that was asked is recorded in `exchanges`.
- A proxy whose plan answers everything needs no registry: that is a server that lies.

    with FaultProxy("127.0.0.1:5000", seeded(7, share=0.2)) as proxy:
        HttpRegistry().resolve(Reference.parse(f"{proxy.address}/cupy:14"))
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tests.serving import Listening
from tests.wire import CHUNK, Body, send_head

if TYPE_CHECKING:
    import ssl

    from curator.oci import Reference
    from tests.wire import Handler

UPSTREAM_TIMEOUT_S = 60.0
WRONG_DIGEST = "sha256:" + "0" * 64
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


class Kind(StrEnum):
    """What goes wrong."""

    ANSWER = "answer"  # the registry is not asked: `status`, `headers` and `body` answer for it
    RESET_BEFORE = "reset-before"  # the connection breaks, the registry was not asked
    RESET_AFTER = "reset-after"  # the registry did it, the connection breaks before its answer
    TRUNCATE = "truncate"  # half of the answer's body; without a body, as `RESET_AFTER`
    CORRUPT = "corrupt"  # the first byte of the answer's body is another one
    LIE = "lie"  # `headers` replace those of the answer
    RENAME = "rename"  # the registry did it, and says so with another `status`
    SLOW = "slow"  # nothing is wrong but the time: it takes `delay_s`
    NO_MOUNT = "no-mount"  # a registry that does not mount: it opens a plain upload instead
    HOLD = "hold"  # the connection breaks within the request's body, the registry saw none of it
    TEAR = "tear"  # as `HOLD`, and the registry saw half of the body


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong; `delay_s` goes before it, `repeat` multiplies `body`.

    `pause_s` goes after each of its repetitions.
    """

    kind: Kind
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    repeat: int = 1
    delay_s: float = 0.0
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked; `number` counts from 0, header names are lower case, `at` is monotonic."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    at: float

    @property
    def key(self) -> str:
        """Method and path, the same for each attempt: without an upload's own name."""
        path = re.sub(r"(/blobs/uploads/)[^?]+\?.*?(digest=[^&]+)?$", r"\1ID?\2", self.path)
        return f"{self.method} {path}"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request and what came of it; no status: the connection was broken. Bodies in bytes."""

    request: Request
    status: int | None = None
    fault: Fault | None = None
    received: int = 0
    sent: int = 0

    def counting(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Count the chunks of the answer's body that were sent."""
        for chunk in chunks:
            yield chunk
            self.sent += len(chunk)


Plan = Callable[[Request], Fault | None]


def answer(
    status: int,
    body: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    retry_after: str | None = None,
) -> Fault:
    """Answer for the registry."""
    wait = {"Retry-After": retry_after} if retry_after is not None else {}
    return Fault(kind=Kind.ANSWER, status=status, headers={**(headers or {}), **wait}, body=body)


def disk_full() -> Fault:
    """Answer as distribution does when its disk is full."""
    enclosed = {"Op": "write", "Path": "/data/link", "Err": 28}
    detail = {"DriverName": "filesystem", "Enclosed": enclosed}
    errors = [{"code": "UNKNOWN", "message": "unknown error", "detail": detail}]
    return answer(500, json.dumps({"errors": errors}).encode())


def wrong_digest() -> Fault:
    """Let the registry answer, but name another digest."""
    return Fault(kind=Kind.LIE, headers={"Docker-Content-Digest": WRONG_DIGEST})


PASSING: tuple[Fault, ...] = (
    *(answer(status) for status in (408, 425, 500, 502, 503, 504)),
    answer(429, retry_after="0"),
    answer(503, retry_after="1"),
    Fault(kind=Kind.RESET_BEFORE),
    Fault(kind=Kind.RESET_AFTER),
    Fault(kind=Kind.TRUNCATE),
    Fault(kind=Kind.SLOW, delay_s=0.2),
)
"""What a client is expected to get over by itself."""


def healthy(_request: Request) -> None:
    """Plan no fault."""


def always(fault: Fault) -> Plan:
    """Plan one fault for every request."""
    return lambda _request: fault


def seeded(seed: int, *, share: float, faults: Iterable[Fault] = PASSING) -> Plan:
    """Plan faults for a share of the requests: a function of the seed and the request's number."""
    choices = tuple(faults)

    def plan(request: Request) -> Fault | None:
        draw = random.Random(f"{seed}:{request.number}")  # noqa: S311 - replayable on purpose
        return draw.choice(choices) if draw.random() < share else None

    return plan


def matching(pattern: str, fault: Fault, *, times: int | None = None) -> Plan:
    """Plan a fault for the requests whose `METHOD /path` matches; the first `times` of them."""
    left = itertools.count() if times is None else iter(range(times))

    def plan(request: Request) -> Fault | None:
        asked = re.search(pattern, f"{request.method} {request.path}")
        return fault if asked and next(left, None) is not None else None

    return plan


def each_once(fault: Fault) -> Plan:
    """Plan that everything fails the first time it is asked, and works the second time."""
    seen: set[str] = set()
    guard = threading.Lock()

    def plan(request: Request) -> Fault | None:
        with guard:
            if request.key in seen:
                return None
            seen.add(request.key)
        return fault

    return plan


class FaultProxy(Listening):
    """A proxy in front of the registry at `upstream` (`host:port`); a context manager.

    It listens on `host`, with TLS where a context is given.
    """

    def __init__(
        self,
        upstream: str = "",
        plan: Plan = healthy,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(self.serve, host=host, tls=tls)
        self.plan = plan
        self.exchanges: list[Exchange] = []
        self._upstream = upstream
        self._guard = threading.Lock()

    @property
    def address(self) -> str:
        """Where the proxy listens, as `host:port`."""
        return self.authority

    def through(self, reference: Reference) -> Reference:
        """Return the same image, seen through this proxy."""
        return replace(reference, registry=self.address)

    @property
    def asked(self) -> list[str]:
        """The `METHOD /path` of everything asked so far."""
        return [f"{e.request.method} {e.request.path}" for e in list(self.exchanges)]

    def forget(self) -> None:
        """Empty the record; the numbering begins again."""
        with self._guard:
            self.exchanges = []

    def serve(self, handler: Handler) -> None:
        """Answer one request."""
        exchange = self._record(handler)
        body = Body(handler)
        try:
            self._serve(handler, exchange, body)
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            handler.reset()
        finally:
            exchange.received = body.count

    def gate(self, request: Request, body: Body) -> Fault | None:  # noqa: ARG002 - for subclasses
        """Return what answers before the plan is asked, or None."""
        return None

    def _record(self, handler: Handler) -> Exchange:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._guard:
            request = Request(
                number=len(self.exchanges),
                method=handler.command,
                path=handler.path,
                headers=headers,
                at=time.monotonic(),
            )
            exchange = Exchange(request=request)
            self.exchanges.append(exchange)
        return exchange

    def _serve(self, handler: Handler, exchange: Exchange, body: Body) -> None:
        fault = exchange.fault = self.plan(exchange.request)
        if fault is not None and fault.kind is Kind.SLOW:
            time.sleep(fault.delay_s)
            fault = None
        fault = fault or self.gate(exchange.request, body)
        if fault is None:
            self._forward(handler, exchange, body, Fault(kind=Kind.LIE))
            return
        time.sleep(fault.delay_s)
        if fault.kind in {Kind.RESET_BEFORE, Kind.HOLD}:
            if fault.kind is Kind.HOLD:
                body.beginning()
            handler.reset()
        elif fault.kind is Kind.ANSWER:
            body.drain()
            exchange.status = fault.status
            chunks = _repeated(fault)
            headers = {"Content-Length": str(len(fault.body) * fault.repeat), **fault.headers}
            handler.reply(fault.status, headers.items(), exchange.counting(chunks))
        else:
            self._forward(handler, exchange, body, fault)

    def _forward(self, handler: Handler, exchange: Exchange, body: Body, fault: Fault) -> None:
        connection = http.client.HTTPConnection(self._upstream, timeout=UPSTREAM_TIMEOUT_S)
        with contextlib.closing(connection):
            path = exchange.request.path
            send_head(
                connection, handler, _unmounted(path) if fault.kind is Kind.NO_MOUNT else path
            )
            if fault.kind is Kind.TEAR:
                connection.send(body.beginning())
                handler.reset()
                return
            for chunk in body:
                connection.send(chunk)
            response = connection.getresponse()
            length = int(response.headers.get("Content-Length") or 0)
            empty = handler.command == "HEAD" or length == 0
            if fault.kind is Kind.RESET_AFTER or (fault.kind is Kind.TRUNCATE and empty):
                response.read()
                handler.reset()
                return
            renamed = fault.kind is Kind.RENAME
            exchange.status = fault.status if renamed else response.status
            chunks = _chunks(response, length // 2 if fault.kind is Kind.TRUNCATE else None)
            if fault.kind is Kind.CORRUPT:
                chunks = _corrupted(chunks)
            headers = _headers(response, fault)
            handler.reply(exchange.status, headers, exchange.counting(chunks))
            if fault.kind is Kind.TRUNCATE:
                handler.reset()


def _repeated(fault: Fault) -> Iterator[bytes]:
    for _ in range(fault.repeat):
        yield fault.body
        time.sleep(fault.pause_s)


def _headers(response: http.client.HTTPResponse, fault: Fault) -> Iterator[tuple[str, str]]:
    replaced = {name.lower() for name in fault.headers}
    for name, value in response.headers.items():
        if name.lower() not in HOP_BY_HOP | replaced:
            yield name, value
    yield from fault.headers.items()


def _chunks(response: http.client.HTTPResponse, limit: int | None) -> Iterator[bytes]:
    if limit is not None:
        yield response.read(limit)
        return
    while chunk := response.read(CHUNK):
        yield chunk


def _corrupted(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    yield bytes([first[0] ^ 1]) + first[1:] if first else b""
    yield from chunks


def _unmounted(path: str) -> str:
    parts = urlsplit(path)
    kept = [pair for pair in parse_qsl(parts.query) if pair[0] not in {"mount", "from"}]
    return urlunsplit(parts._replace(query=urlencode(kept)))
