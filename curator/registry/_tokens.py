"""The Authorization of each request: docker's login itself, or a token that it is changed into.

- A token is asked for what it is needed for, the target of a push first, and serves whatever
  needs no more than that.
- A 401 renews it once; a token that was refused is never sent again.
- Several threads that need the same token ask for it once.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from curator.errors import RefusedError
from curator.registry._answer import OK, UNAUTHORIZED, Answer, read
from curator.registry._auth import (
    TOKEN_USER,
    Challenge,
    Credentials,
    Token,
    challenges,
    credentials,
)
from curator.registry._guards import check_elsewhere, joined
from curator.registry._retry import RETRIED, PostponedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from curator.registry._retry import Deadline
    from curator.wire import Wire

MAX_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request needs: to pull from a repository, or to push too, and to pull another."""

    registry: str
    repository: str
    push: bool = False
    also: str | None = None

    @property
    def texts(self) -> list[str]:
        """The scope as a token server is asked for it, the target first."""
        actions = "pull,push" if self.push else "pull"
        wanted = [f"repository:{self.repository}:{actions}"]
        return [*wanted, f"repository:{self.also}:pull"] if self.also else wanted

    def covers(self, other: Scope) -> bool:
        """Whether a token for this serves the other too."""
        return self.registry == other.registry and self._grants >= other._grants

    @property
    def _grants(self) -> frozenset[tuple[str, str]]:
        actions = {"pull", "push"} if self.push else {"pull"}
        grants = {(self.repository, action) for action in actions}
        return frozenset(grants | ({(self.also, "pull")} if self.also else set()))


class Authority:
    """What registries asked for, our logins, and our tokens; safe to use from several threads."""

    def __init__(self, wire: Wire, docker_config: Path | None) -> None:
        self._wire = wire
        self._config = docker_config
        self._guard = threading.RLock()
        self._asking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._tokens: dict[Scope, Token] = {}
        self._fresh: dict[str, Token] = {}
        self._schemes: dict[str, Challenge] = {}
        self._logins: dict[str, Credentials | None] = {}

    def authorization(self, scope: Scope, deadline: Deadline) -> dict[str, str]:
        """Return the Authorization header that a request needs, as far as that is known."""
        challenge = self._schemes.get(scope.registry)
        if challenge is None:
            return {}
        if challenge.scheme == "basic":
            known = self._credentials(scope.registry)
            return {"Authorization": known.basic} if known else {}
        return {"Authorization": f"Bearer {self._token(challenge, scope, deadline).value}"}

    def renewed(
        self, scope: Scope, challenge: str, sent: Mapping[str, str], deadline: Deadline
    ) -> dict[str, str] | None:
        """Return another Authorization than the one that got a 401, or None if there is none."""
        asked = challenges(challenge)
        if not asked:
            return None
        with self._guard:
            self._schemes[scope.registry] = asked[0]
            if sent:
                self._logins.pop(scope.registry, None)
        if sent and asked[0].scheme == "bearer":
            return self._replaced(asked[0], scope, sent, deadline)
        found = self.authorization(scope, deadline)
        return found if found and found != dict(sent) else None

    def _replaced(
        self, challenge: Challenge, scope: Scope, sent: Mapping[str, str], deadline: Deadline
    ) -> dict[str, str] | None:
        """Forget a token that was refused, and get another, which nobody else has yet."""
        refused = sent["Authorization"].removeprefix("Bearer ")
        with self._guard:
            self._tokens = {s: t for s, t in self._tokens.items() if t.value != refused}
        token = self._fetch(challenge, scope, deadline)
        if token.value == refused:
            return None
        header = f"Bearer {token.value}"
        with self._guard:
            self._fresh[header] = token
        return {"Authorization": header}

    def settled(self, scope: Scope, sent: Mapping[str, str], status: int) -> None:
        """Note how a request ended: a new token that was taken may be used by others too."""
        with self._guard:
            token = self._fresh.pop(sent.get("Authorization", ""), None)
            if token is not None and status != UNAUTHORIZED:
                self._tokens[scope] = token

    def _token(self, challenge: Challenge, scope: Scope, deadline: Deadline) -> Token:
        with self._guard:
            asking = self._asking[scope.registry]
        with asking:
            held = self._held(scope)
            if held is None:
                held = self._fetch(challenge, scope, deadline)
                with self._guard:
                    self._tokens[scope] = held
        return held

    def _held(self, scope: Scope) -> Token | None:
        now = time.monotonic()
        with self._guard:
            fitting = (t for s, t in self._tokens.items() if s.covers(scope) and t.renew_at > now)
            return next(fitting, None)

    def _credentials(self, registry: str) -> Credentials | None:
        """Return docker's login for a registry, looked up once."""
        with self._guard:
            if registry not in self._logins:
                self._logins[registry] = credentials(registry, self._config)
            return self._logins[registry]

    def _fetch(self, challenge: Challenge, scope: Scope, deadline: Deadline) -> Token:
        realm = joined("", challenge.parameters.get("realm", ""))
        check_elsewhere(scope.registry, realm)
        service = challenge.parameters.get("service")
        known = self._credentials(scope.registry)
        if known and known.user == TOKEN_USER:
            form = {"grant_type": "refresh_token", "refresh_token": known.secret,
                    "client_id": "curator", "scope": " ".join(scope.texts)}  # fmt: skip
            form |= {"service": service} if service else {}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode(form).encode()
            response = self._wire.send("POST", realm.geturl(), headers, body, deadline)
        else:
            query = [("service", service)] if service else []
            query += [("scope", text) for text in scope.texts]
            url = f"{realm.geturl()}{'&' if realm.query else '?'}{urlencode(query)}"
            headers = {"Authorization": known.basic} if known else {}
            response = self._wire.send("GET", url, headers, None, deadline)
        return _given(read(response, scope.registry, MAX_TOKEN_BYTES), scope)


def _given(answer: Answer, scope: Scope) -> Token:
    if answer.status in RETRIED:
        raise PostponedError(answer, f"{scope.registry}'s token server")
    if answer.status != OK:
        raise RefusedError(
            f"{scope.registry}: its token server answers {answer.status} "
            f"for {scope.repository}: run `docker login {scope.registry}`"
        )
    return Token.from_json(answer.data, scope.registry)
