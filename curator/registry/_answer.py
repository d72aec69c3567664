"""What a registry answered, and what that means to us."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from curator import wire
from curator.errors import IntegrityError, RefusedError, TemporaryError
from curator.registry._retry import RETRIED

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from urllib3 import BaseHTTPResponse

MAX_ERROR_BYTES: Final = 64 * 1024
SUCCESS: Final = range(200, 300)
OK, CREATED, ACCEPTED, NO_CONTENT, PARTIAL = 200, 201, 202, 204, 206
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, SERVER_ERROR = 401, 403, 404, 500
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer with its body, read and bounded."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    registry: str


def read(response: BaseHTTPResponse, registry: str, limit: int) -> Answer:
    """Read an answer's body up to a limit; a failing one is cut, a good one must not be longer.

    Raises:
        IntegrityError: more comes than is right.
    """
    good = response.status < SUCCESS.stop
    allowed = limit if good else MAX_ERROR_BYTES
    data = wire.read(response, allowed + 1)
    if good and len(data) > allowed:
        raise IntegrityError(f"{registry} sends more than {allowed} bytes where less is right")
    return Answer(
        status=response.status, headers=response.headers, data=data[:allowed], registry=registry
    )


def expect(answer: Answer, status: int | Container[int], doing: str) -> None:
    """Translate an answer of another status than the one expected, or those.

    Raises:
        IntegrityError: the registry got other bytes than we sent.
        RefusedError: the registry would answer the same again.
        TemporaryError: it may not.
    """
    if answer.status in ({status} if isinstance(status, int) else status):
        return
    told = f"{doing}: {answer.status} {_told(answer)}".rstrip()
    if wait := answer.headers.get("Retry-After"):
        told += f" (asks to wait {wait[:40]} s)" if wait.isdecimal() else f" (until {wait[:40]})"
    if answer.status in {UNAUTHORIZED, FORBIDDEN}:
        raise RefusedError(f"{told}: run `docker login {answer.registry}` with push rights")
    if answer.status in RETRIED or answer.status >= SERVER_ERROR:
        raise TemporaryError(told)
    raise RefusedError(told)


def expect_digest(answer: Answer, digest: str, doing: str) -> None:
    """Hold the digest that a registry names against the one that was meant.

    Raises:
        IntegrityError: it names another.
    """
    named = answer.headers.get("Docker-Content-Digest", digest)
    if named != digest:
        raise IntegrityError(f"{doing}: expected {digest}, the registry names {named[:100]}")


def lacks_a_blob(answer: Answer) -> bool:
    """Whether a manifest was refused because a blob that it names is not there."""
    return answer.status in {400, 404} and b"BLOB_UNKNOWN" in answer.data


def number(text: str | None) -> int | None:
    """Read a count of bytes from a header; None if it is none."""
    plain = text is not None and text.isascii() and text.isdecimal() and len(text) < 19  # noqa: PLR2004 - as 64 bits hold
    return int(text) if plain and text is not None else None


def _told(answer: Answer) -> str:
    """Return a registry's own words, short and on one line."""
    words = _words(answer)
    told = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:300]
    # distribution's filesystem driver passes the system's error on as a number.
    return f"{told} (no space left on its disk)" if f"'Err': {errno.ENOSPC}" in words else told


def _words(answer: Answer) -> str:
    try:
        errors = json.loads(answer.data)["errors"]
        words = [
            f"{item.get('code')} {item.get('message')} {item.get('detail') or ''}"
            for item in errors
        ]
        text = "; ".join(words)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        text = answer.data.decode(errors="replace")
    return text
