"""A registry that wants a token first: a token server and the gate it opens, as one proxy."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.faults import Fault, FaultProxy, answer, healthy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults import Plan, Request
    from tests.wire import Body


@dataclass(slots=True)
class _Issued:
    """A token that was handed out."""

    scopes: frozenset[tuple[str, str]]
    ends: float
    uses_left: float


class TokenProxy(FaultProxy):
    """A proxy that lets nobody through to the registry without a bearer token for the scope.

    `logins` are users and their passwords (none: tokens are free), `identity` is a refresh token
    that is accepted too. A token lives `life_s` seconds and `uses` requests.
    Source: distribution, docs/spec/auth/token.md.
    """

    def __init__(
        self,
        upstream: str,
        plan: Plan = healthy,
        *,
        logins: Mapping[str, str] | None = None,
        identity: str | None = None,
        life_s: float = 300.0,
        uses: float = float("inf"),
    ) -> None:
        super().__init__(upstream, plan)
        self.granted: list[frozenset[tuple[str, str]]] = []
        self._logins, self._identity = logins or {}, identity
        self._life_s, self._uses = life_s, uses
        self._issued: dict[str, _Issued] = {}

    def gate(self, request: Request, body: Body) -> Fault | None:
        """Give out a token, let a request pass, or ask for a token."""
        if urlsplit(request.path).path == "/token":
            return self._token(request, body.drain())
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        token = self._issued.get(value)
        needed = _needed(request)
        if kind == "Bearer" and token and token.ends > time.monotonic() and token.uses_left > 0:
            token.uses_left -= 1
            if needed <= token.scopes:
                return None
        scope = " ".join(f"repository:{name}:{action}" for name, action in sorted(needed))
        challenge = f'Bearer realm="http://{self.address}/token",service="here",scope="{scope}"'
        return answer(401, headers={"WWW-Authenticate": f'Basic realm="here", {challenge}'})

    def _token(self, request: Request, form: bytes) -> Fault:
        query = parse_qs(form.decode() if form else urlsplit(request.path).query)
        if not self._admits(request, query):
            return answer(401, b'{"details": "incorrect username or password"}')
        words = " ".join(query.get("scope", [])).split()
        scopes = frozenset(
            (word.split(":")[1], action)
            for word in words
            for action in word.split(":")[2].split(",")
        )
        value = secrets.token_urlsafe(24)
        self._issued[value] = _Issued(scopes, time.monotonic() + self._life_s, self._uses)
        self.granted.append(scopes)
        return answer(200, json.dumps({"token": value, "expires_in": self._life_s}).encode())

    def _admits(self, request: Request, query: Mapping[str, list[str]]) -> bool:
        if self._identity and query.get("refresh_token") == [self._identity]:
            return query.get("grant_type") == ["refresh_token"]
        pairs = {basic(user, password) for user, password in self._logins.items()}
        return not self._logins or request.headers.get("authorization") in pairs


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _needed(request: Request) -> frozenset[tuple[str, str]]:
    parts = urlsplit(request.path)
    found = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", parts.path)
    if found is None:
        return frozenset()
    actions = {"pull"} if request.method in {"GET", "HEAD"} else {"pull", "push"}
    sources = parse_qs(parts.query).get("from", [])
    return frozenset({(found[1], action) for action in actions} | {(s, "pull") for s in sources})
