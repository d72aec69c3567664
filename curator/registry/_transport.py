"""Requests to registries: authorized, repeated where that may help, bounded in time and bytes."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from curator import wire
from curator.errors import IntegrityError
from curator.registry._answer import (
    MAX_ERROR_BYTES,
    OK,
    PARTIAL,
    REDIRECTS,
    UNAUTHORIZED,
    Answer,
    expect,
    number,
    read,
)
from curator.registry._guards import check_elsewhere, joined, own_path
from curator.registry._retry import RETRIED, Deadline, PostponedError, TransferDeadline, repeat
from curator.registry._tokens import Authority, Scope
from curator.wire import Wire, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from pathlib import Path

    from urllib3 import BaseHTTPResponse

    from curator.oci import Descriptor, Reference

# What a transfer gets beyond the deadline: who is slower than this is not waited for.
SLOWEST_BYTES_PER_S: Final = 256 * 1024
MAX_REDIRECTS: Final = 5
_NEXT = re.compile(r"<([^>]*)>\s*;\s*rel=\"?next\"?")


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, apart from who sends it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | Callable[[], Iterator[bytes]] | None = None


class Transport:
    """Requests to registries; safe to use from several threads."""

    def __init__(self, docker_config: Path | None, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._wire = Wire()
        self._authority = Authority(self._wire, docker_config)

    def deadline(self) -> Deadline:
        """Return until when a request may be tried."""
        return Deadline(self._deadline_s)

    def transfer_deadline(self, size: int) -> TransferDeadline:
        """Return until when a transfer of so many bytes may be tried."""
        whole_s = self._deadline_s + size / SLOWEST_BYTES_PER_S
        return TransferDeadline(whole_s, self._deadline_s)

    def request(  # noqa: PLR0913 - a request has this many parts
        self,
        method: str,
        reference: Reference,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit: int = MAX_ERROR_BYTES,
        push: bool = False,
        also: str | None = None,
        follow: bool = False,
        retried: Container[int] = RETRIED,
        deadline: Deadline | None = None,
    ) -> Answer:
        """Send a request, again while its failure may pass, and return the answer.

        Raises:
            TemporaryError: the registry could not be reached within the deadline.
        """
        scope = Scope(reference.registry, reference.repository, push, also)
        asked = _Request(method, _url(reference.registry, path, query), headers or {}, body)
        until = deadline or self.deadline()

        def attempt() -> Answer:
            response = self._authorized(asked, scope, until)
            if follow:
                response = self._followed(asked, response, scope, until)
            return read(response, reference.registry, limit)

        return repeat(attempt, f"{method} {asked.url}", reference.registry, until, retried)

    def send(  # noqa: PLR0913 - as request
        self,
        method: str,
        target: Reference,
        location: str,
        body: Callable[[], Iterator[bytes]],
        *,
        size: int,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a part of an upload as it streams; one attempt."""
        scope = Scope(target.registry, target.repository, push=True)
        fixed = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        url = _url(target.registry, location, None)
        asked = _Request(method, url, {**(headers or {}), **fixed}, body)
        return read(self._authorized(asked, scope, deadline), target.registry, MAX_ERROR_BYTES)

    @contextlib.contextmanager
    def stream(
        self, source: Reference, blob: Descriptor, offset: int, deadline: Deadline
    ) -> Iterator[Iterator[bytes]]:
        """Give a blob's bytes from an offset on, as they come; one attempt.

        Raises:
            IntegrityError: the source has another size, or gives another part.
            RefusedError: it does not give it.
        """
        path = f"/v2/{source.repository}/blobs/{blob.digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        asked = _Request("GET", _url(source.registry, path, None), headers)
        scope = Scope(source.registry, source.repository)
        response = self._authorized(asked, scope, deadline)
        response = self._followed(asked, response, scope, deadline)
        try:
            yield _body(response, source, blob, offset)
        finally:
            wire.close(response)

    def location(self, target: Reference, asked: str, answer: Answer) -> str:
        """Return where an upload goes on after what was asked: a path of the same registry.

        Raises:
            IntegrityError: the registry points to another host.
        """
        return self._here(target, asked, answer.headers.get("Location", ""))

    def next_page(self, repository: Reference, asked: str, answer: Answer) -> str | None:
        """Return where a listing goes on, a path of the same registry, or None at its end."""
        match = _NEXT.search(answer.headers.get("Link", ""))
        return self._here(repository, asked, match[1]) if match else None

    def _here(self, reference: Reference, asked: str, address: str) -> str:
        return own_path(reference.registry, _url(reference.registry, asked, None), address)

    def _followed(
        self, asked: _Request, response: BaseHTTPResponse, scope: Scope, deadline: Deadline
    ) -> BaseHTTPResponse:
        """Follow redirects: blobs may lie on a content network, which never sees who we are.

        Where the registry leads within itself it still does; once elsewhere, nobody does again.
        """
        is_here = True
        for _ in range(MAX_REDIRECTS):
            if response.status not in REDIRECTS:
                return response
            _drain(response)
            target = joined(asked.url, response.headers.get("Location", ""))
            check_elsewhere(scope.registry, target)
            asked = replace(asked, url=target.geturl())
            is_here = is_here and asked.url.startswith(_url(scope.registry, "/", None))
            if is_here:
                response = self._authorized(asked, scope, deadline)
            else:
                response = self._wire.send(asked.method, asked.url, asked.headers, None, deadline)
        if response.status in REDIRECTS:
            _drain(response)
            raise IntegrityError(f"{scope.registry}: redirected more than {MAX_REDIRECTS} times")
        return response

    def _authorized(self, asked: _Request, scope: Scope, deadline: Deadline) -> BaseHTTPResponse:
        """Send with what authorization we have; on a 401 get it, and renew it once."""
        sent = self._authority.authorization(scope, deadline)
        response = self._sent(asked, sent, deadline)
        for _ in range(1 if sent else 2):
            if response.status != UNAUTHORIZED:
                break
            _drain(response)
            told = response.headers.get("WWW-Authenticate", "")
            renewed = self._authority.renewed(scope, told, sent, deadline)
            if renewed is None:
                break
            sent = renewed
            response = self._sent(asked, sent, deadline)
        self._authority.settled(scope, sent, response.status)
        return response

    def _sent(
        self, asked: _Request, authorization: Mapping[str, str], deadline: Deadline
    ) -> BaseHTTPResponse:
        headers = {**asked.headers, **authorization}
        body = asked.body() if callable(asked.body) else asked.body
        return self._wire.send(asked.method, asked.url, headers, body, deadline)


def _url(registry: str, path: str, query: Mapping[str, str] | None) -> str:
    scheme = "http" if is_loopback(registry) else "https"
    url = f"{scheme}://{registry}{path}"
    return f"{url}{'&' if '?' in path else '?'}{urlencode(query)}" if query else url


def _drain(response: BaseHTTPResponse) -> None:
    """Let a connection be used again, unless its answer is too long to read for that."""
    wire.read(response, MAX_ERROR_BYTES + 1)


def _body(
    response: BaseHTTPResponse, source: Reference, blob: Descriptor, offset: int
) -> Iterator[bytes]:
    """Check what a source begins to give, and give the part that was asked for."""
    doing = f"reading {blob.digest} of {source}"
    if response.status not in {OK, PARTIAL}:
        answer = read(response, source.registry, MAX_ERROR_BYTES)
        if answer.status in RETRIED:
            raise PostponedError(answer, doing)
        expect(answer, OK, doing)
    begin = offset if response.status == PARTIAL else 0
    length = number(response.headers.get("Content-Length"))
    if length not in {None, blob.size - begin}:
        raise IntegrityError(f"{doing}: {length} bytes come where {blob.size - begin} are right")
    told = response.headers.get("Content-Range", "")
    if begin and not told.startswith(f"bytes {begin}-"):
        raise IntegrityError(f"{doing}: asked for what follows {begin}, {told[:100]!r} comes")
    return _skipping(wire.pieces(response, blob.size - begin), offset - begin)


def _skipping(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Leave out the beginning, for a server that knows no ranges."""
    left = count
    for piece in pieces:
        kept = piece[left:]
        left -= len(piece) - len(kept)
        if kept:
            yield kept
