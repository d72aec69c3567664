"""HTTP to registries: authorization, bounded retries and bounded reads, over urllib3."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import ssl
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

import urllib3

from curator.errors import IntegrityError, RefusedError, TemporaryError
from curator.registry._auth import (
    TOKEN_USER,
    Challenge,
    Credentials,
    Token,
    challenges,
    credentials,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from curator.oci import Reference

log = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 64 * 1024
MAX_ERROR_BYTES = 64 * 1024
CONNECT_S, READ_S = 10.0, 120.0
BACKOFF_S, BACKOFF_CAP_S = 0.1, 10.0
MAX_ATTEMPTS = 12
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a registry answered, its body read and bounded."""

    status: int
    headers: urllib3.HTTPHeaderDict
    data: bytes
    registry: str


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a token is for."""

    registry: str
    repository: str
    actions: str
    also: str | None

    @property
    def texts(self) -> list[str]:
        wanted = [f"repository:{self.repository}:{self.actions}"]
        return [*wanted, f"repository:{self.also}:pull"] if self.also else wanted


def is_loopback(registry: str) -> bool:
    """Whether a registry is on this machine, where docker too speaks plain HTTP."""
    host = urlsplit(f"//{registry}").hostname or ""
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


class Transport:
    """Requests to registries; safe to use from several threads."""

    def __init__(self, docker_config: Path, *, deadline_s: float) -> None:
        self._config = docker_config
        self._deadline_s = deadline_s
        bundle = os.environ.get("SSL_CERT_FILE") or None
        self._pool = urllib3.PoolManager(
            maxsize=16,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            ssl_context=ssl.create_default_context(cafile=bundle),
        )
        self._guard = threading.Lock()
        self._tokens: dict[_Scope, Token] = {}
        self._schemes: dict[str, Challenge] = {}
        self._logins: dict[str, Credentials | None] = {}

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
    ) -> Answer:
        """Send a request, again while its failure may pass, and return the answer.

        Raises:
            TemporaryError: the registry could not be reached within the deadline.
        """
        scope = _scope(reference, push=push, also=also)
        url = self._url(reference.registry, path, query)

        def attempt() -> Answer:
            response = self._authorized(method, url, scope, headers or {}, body)
            if follow and response.status in {301, 302, 303, 307, 308}:
                response = self._redirected(method, url, response)
            return _read(response, reference.registry, limit)

        return self.repeat(attempt, f"{method} {url}", reference.registry)

    def repeat(self, attempt: Callable[[], Answer], doing: str, registry: str) -> Answer:
        """Call again what fails for a passing reason, until it works or time is up.

        Raises:
            RefusedError: the registry's certificate is not trusted.
            TemporaryError: no attempt got an answer.
        """
        deadline = time.monotonic() + self._deadline_s
        for number in range(1, MAX_ATTEMPTS + 1):
            try:
                answer = attempt()
            except urllib3.exceptions.SSLError as error:
                raise RefusedError(
                    f"{doing}: {error}: if {registry} has a private CA, set SSL_CERT_FILE to it"
                ) from error
            except urllib3.exceptions.HTTPError as error:
                wait_s, told = _backoff(number), f"{type(error).__name__}: {error}"
                failure: Exception | None = error
            else:
                if answer.status not in RETRIED:
                    return answer
                wait_s, told = _retry_after(answer, number), f"status {answer.status}"
                failure = None
            if number == MAX_ATTEMPTS or time.monotonic() + wait_s > deadline:
                break
            log.info("%s: %s, again in %.1f s", doing, told, wait_s)
            time.sleep(wait_s)
        if failure is None:
            return answer
        host = urlsplit(doing.rsplit(maxsplit=1)[-1]).netloc or doing
        raise TemporaryError(f"{doing}: no answer from {host} ({told[:200]})") from failure

    def upload(
        self,
        target: Reference,
        location: str,
        body: IO[bytes] | urllib3.BaseHTTPResponse,
        *,
        size: int,
        query: Mapping[str, str],
    ) -> Answer:
        """PUT a whole blob to an opened upload, streaming it; one attempt."""
        url = self._url(target.registry, location, query)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        response = self._authorized("PUT", url, _scope(target, push=True), headers, body)
        return _read(response, target.registry, MAX_ERROR_BYTES)

    @contextlib.contextmanager
    def stream(self, source: Reference, path: str) -> Iterator[urllib3.BaseHTTPResponse]:
        """Give a blob's body unread; one attempt."""
        url = self._url(source.registry, path, None)
        response = self._authorized("GET", url, _scope(source, push=False), {}, None)
        if response.status in {301, 302, 303, 307, 308}:
            response = self._redirected("GET", url, response)
        try:
            if response.status in RETRIED:
                raise urllib3.exceptions.HTTPError(f"status {response.status}")
            if response.status != 200:  # noqa: PLR2004
                raise RefusedError(f"reading {url}: status {response.status}")
            yield response
        finally:
            response.release_conn()

    def location(self, target: Reference, answer: Answer) -> str:
        """Return where an upload goes on: a path of the same registry.

        Raises:
            IntegrityError: the registry points to another host.
        """
        return self._here(target, answer.headers.get("Location", ""))

    def next_page(self, repository: Reference, answer: Answer) -> str | None:
        """Return where a listing goes on, a path of the same registry, or None at its end."""
        match = re.search(r"<([^>]*)>\s*;\s*rel=\"?next\"?", answer.headers.get("Link", ""))
        return self._here(repository, match[1]) if match else None

    def _here(self, reference: Reference, address: str) -> str:
        base = self._url(reference.registry, "/", None)
        url = _joined(base, address)
        if (url.scheme, url.netloc) != urlsplit(base)[:2]:
            raise IntegrityError(f"{reference.registry} points to another host, {url.netloc}")
        return f"{url.path}?{url.query}" if url.query else url.path

    def _url(self, registry: str, path: str, query: Mapping[str, str] | None) -> str:
        scheme = "http" if is_loopback(registry) else "https"
        url = f"{scheme}://{registry}{path}"
        return f"{url}{'&' if '?' in path else '?'}{urlencode(query)}" if query else url

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Any:  # noqa: ANN401 - urllib3's own
        return self._pool.request(
            method, url, headers=dict(headers), body=body, preload_content=False, redirect=False
        )

    def _redirected(self, method: str, url: str, response: Any) -> Any:  # noqa: ANN401 - as _send
        """Follow one redirect without our authorization: blobs may lie on a content network."""
        _drain(response)
        target = _joined(url, response.headers.get("Location", ""))
        loopback = target.scheme == "http" and is_loopback(target.netloc)
        if target.scheme != "https" and not loopback:
            raise IntegrityError(f"{url} redirects to {target.geturl()[:200]}, which is not https")
        return self._send(method, target.geturl(), {}, None)

    def _authorized(
        self,
        method: str,
        url: str,
        scope: _Scope,
        headers: Mapping[str, str],
        body: Any,  # noqa: ANN401 - bytes or a stream
    ) -> Any:  # noqa: ANN401 - as _send
        """Send with what authorization we have; on a 401 get a new one and send once more."""
        authorization = self._authorization(scope)
        response = self._send(method, url, {**headers, **authorization}, body)
        if response.status != 401:  # noqa: PLR2004
            return response
        asked = challenges(response.headers.get("WWW-Authenticate", ""))
        if not asked:
            return response
        _drain(response)
        with self._guard:
            self._schemes[scope.registry] = asked[0]
            self._tokens.pop(scope, None)
            if authorization:
                self._logins.pop(scope.registry, None)
        renewed = self._authorization(scope)
        if not renewed or (renewed == authorization and asked[0].scheme == "basic"):
            return response
        if hasattr(body, "read"):
            if not body.seekable():
                # The new token is kept: the next attempt streams from the start with it.
                raise urllib3.exceptions.HTTPError("the token ended while a blob was on its way")
            body.seek(0)
        return self._send(method, url, {**headers, **renewed}, body)

    def _authorization(self, scope: _Scope) -> dict[str, str]:
        challenge = self._schemes.get(scope.registry)
        if challenge is None:
            return {}
        if challenge.scheme == "basic":
            known = self._credentials(scope.registry)
            return {"Authorization": known.basic} if known else {}
        token = self._tokens.get(scope)
        if token is None or time.monotonic() > token.renew_at:
            token = self._fetch_token(challenge, scope)
            with self._guard:
                self._tokens[scope] = token
        return {"Authorization": f"Bearer {token.value}"}

    def _credentials(self, registry: str) -> Credentials | None:
        """Return docker's login for a registry, looked up once."""
        with self._guard:
            if registry not in self._logins:
                self._logins[registry] = credentials(registry, self._config)
            return self._logins[registry]

    def _fetch_token(self, challenge: Challenge, scope: _Scope) -> Token:
        realm = challenge.parameters.get("realm", "")
        parts = _joined("", realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.netloc)):
            raise IntegrityError(
                f"{scope.registry} sends for a token to {realm[:200]!r}, not https"
            )
        pairs = [("scope", text) for text in scope.texts]
        if service := challenge.parameters.get("service"):
            pairs.insert(0, ("service", service))
        known = self._credentials(scope.registry)
        headers = {"Authorization": known.basic} if known and known.user != TOKEN_USER else {}
        if known and known.user == TOKEN_USER:
            form = {"grant_type": "refresh_token", "refresh_token": known.secret,
                    "client_id": "curator", "scope": " ".join(scope.texts)}  # fmt: skip
            if service:
                form["service"] = service
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._send("POST", realm, headers, urlencode(form))
        else:
            separator = "&" if parts.query else "?"
            response = self._send("GET", f"{realm}{separator}{urlencode(pairs)}", headers, None)
        answer = _read(response, scope.registry, MAX_TOKEN_BYTES)
        if answer.status in RETRIED:
            raise urllib3.exceptions.HTTPError(f"token server: status {answer.status}")
        if answer.status != 200:  # noqa: PLR2004
            raise RefusedError(
                f"{scope.registry}: its token server answers {answer.status} "
                f"for {scope.repository}: "
                f"run `docker login {scope.registry}`"
            )
        return Token.from_json(answer.data, scope.registry)


def _joined(base: str, address: str) -> SplitResult:
    """Return the address that a server gives, relative to where it gives it.

    Raises:
        IntegrityError: it is no address.
    """
    try:
        parts = urlsplit(urljoin(base, address))
        _ = parts.port
    except ValueError as error:
        raise IntegrityError(f"a server points to {address[:200]!r}, which is nowhere") from error
    return parts


def _scope(reference: Reference, *, push: bool, also: str | None = None) -> _Scope:
    actions = "pull,push" if push else "pull"
    return _Scope(reference.registry, reference.repository, actions, also)


def _drain(response: Any) -> None:  # noqa: ANN401 - as _send
    """Let a connection be used again, unless its answer is too long to read for that."""
    if len(response.read(MAX_ERROR_BYTES + 1)) > MAX_ERROR_BYTES:
        response.close()
    response.release_conn()


def _read(response: Any, registry: str, limit: int) -> Answer:  # noqa: ANN401 - as _send
    """Read a body up to a limit; a failing answer is cut, a good one must not be longer."""
    good = response.status < 300  # noqa: PLR2004
    allowed = limit if good else MAX_ERROR_BYTES
    data = response.read(allowed + 1)
    if good and len(data) > allowed:
        response.close()
        raise IntegrityError(f"{registry} sends more than {allowed} bytes where less is right")
    if len(data) <= allowed:
        response.drain_conn()
    response.release_conn()
    return Answer(
        status=response.status, headers=response.headers, data=data[:allowed], registry=registry
    )


def _backoff(number: int) -> float:
    return random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2**number))  # noqa: S311 - jitter


def _retry_after(answer: Answer, number: int) -> float:
    """Return how long to wait: what the server asks for, in seconds or until a date, at least."""
    text = answer.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text) + _backoff(1)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) + _backoff(1)
    return _backoff(number)
