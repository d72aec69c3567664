"""Who we are to a registry: docker's own login, and the tokens that registries hand out."""

from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curator.errors import HostError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HELPER_TIMEOUT_S = 30
TOKEN_LIFE_S = 60.0
RENEW_AT = 0.8
# What helpers say then, of which the whole is "credentials not found in native keychain".
NO_LOGIN = "credentials not found"
TOKEN_USER = "<token>"  # noqa: S105 - the name docker's credential helpers give to identity tokens
_CHALLENGE = re.compile(
    r"\b(bearer|basic)\b((?:[^\"]|\"[^\"]*\")*?)(?=\bbasic\b|\bbearer\b|$)", re.IGNORECASE
)
# It goes into a header as it is.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a secret; never shown."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ...)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.user}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for; the realm is where tokens are given out."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(header: str) -> list[Challenge]:
    """Read a WWW-Authenticate header, Bearer before Basic.

    Source: RFC 9110, section 11.6.1.
    """
    found = [
        Challenge(match[1].lower(), _parameters(match[2])) for match in _CHALLENGE.finditer(header)
    ]
    return sorted(found, key=lambda challenge: challenge.scheme != "bearer")


def _parameters(text: str) -> dict[str, str]:
    found = _PARAMETER.findall(text)
    return {name.lower(): quoted or plain for name, quoted, plain in found}


def credentials(registry: str, config: Path | None) -> Credentials | None:
    """Return what `docker login` stored for a registry, or None.

    Order: credHelpers, credsStore, auths, as the docker client has it. Its keys may be addresses,
    as `https://HOST/v1/`; a helper knows a login by the very key.

    Raises:
        HostError: the configuration, or the helper that it names, does not work.
    """
    settings = _settings(config) if config else {}
    auths = _section(settings, "auths")
    same = (key for key in auths if _host(key) == registry)
    key = registry if registry in auths else next(same, registry)
    helper = _section(settings, "credHelpers").get(registry, settings.get("credsStore"))
    if helper:
        return _from_helper(str(helper), key)
    entry = auths.get(key)
    if not isinstance(entry, dict):
        return None
    try:
        return _from_entry(entry)
    except ValueError as error:
        raise HostError(f"{config} holds no readable login for {registry}: log in again") from error


def _host(key: str) -> str:
    """Return which host a key of `auths` is about."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _from_entry(entry: Mapping[str, Any]) -> Credentials | None:
    if entry.get("identitytoken"):
        return Credentials(TOKEN_USER, str(entry["identitytoken"]))
    if not entry.get("auth"):
        user, secret = str(entry.get("username") or ""), str(entry.get("password") or "")
    else:
        user, _, secret = base64.b64decode(str(entry["auth"])).decode().partition(":")
    return Credentials(user, secret.strip("\0")) if user else None


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, dict) else {}


def _settings(config: Path) -> dict[str, Any]:
    try:
        value = json.loads((config / "config.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise HostError(f"{config / 'config.json'} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def _from_helper(helper: str, server: str) -> Credentials | None:
    """Ask a docker credential helper, over its documented protocol."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise HostError(f"docker's configuration names an impossible credential helper {helper!r}")
    program = f"docker-credential-{helper}"
    try:
        result = subprocess.run(  # noqa: S603 - a helper that the user configured for docker
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            check=False,
            timeout=HELPER_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{program} does not answer: {error}") from error
    if result.returncode:
        told = " ".join((result.stdout or result.stderr).decode(errors="replace").split())
        if NO_LOGIN in told:
            return None
        raise HostError(f"{program} fails for {server}: {told[:300] or result.returncode}")
    try:
        value = json.loads(result.stdout.decode())
        return Credentials(str(value["Username"]), str(value["Secret"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HostError(f"{program} gives no login for {server}") from error


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and when to stop using it, on the monotonic clock."""

    value: str
    renew_at: float

    @classmethod
    def from_json(cls, data: bytes, registry: str) -> Token:
        """Read a token server's answer.

        Source: distribution, docs/spec/auth/token.md.
        """
        try:
            value = json.loads(data)
            token = value.get("token") or value["access_token"]
            life_s = float(value.get("expires_in") or TOKEN_LIFE_S)
            if not _TOKEN.fullmatch(token):
                raise ValueError("no token")  # noqa: TRY301 - as one that is missing
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RefusedError(f"{registry}: its token server gave no token") from error
        if not 0 < life_s < math.inf:
            life_s = TOKEN_LIFE_S
        return cls(token, time.monotonic() + RENEW_AT * life_s)
