"""Trying again: for how long, after which pause, and what is worth it.

A deadline bounds all attempts at one thing together, and each of them while it runs. A server's
Retry-After is a lower bound: nothing is asked before it, and what lies beyond the deadline is not
waited for.

Source: RFC 9110, section 10.2.3;
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError, SSLError

from curator.errors import RefusedError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

log = logging.getLogger(__name__)

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
BACKOFF_S, BACKOFF_CAP_S = 0.1, 10.0
# The longest that anything is tried for; sockets take no endless numbers.
LONGEST_S = 86_400.0
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


class Deadline:
    """A moment on the monotonic clock until which something may be tried."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + min(seconds, LONGEST_S)

    @property
    def left_s(self) -> float:
        """How long there still is; negative afterwards."""
        return self._at - time.monotonic()

    @property
    def again_s(self) -> float:
        """How long there still is to begin again."""
        return self.left_s

    def failed(self) -> None:
        """Note that an attempt failed."""

    def check(self) -> None:
        """Raise TimeoutError, as a socket would, when the moment has passed."""
        if self.left_s <= 0:
            raise TimeoutError("the deadline has passed")


class TransferDeadline(Deadline):
    """A deadline for what takes long by its size: who fails and does not get on has less time."""

    __slots__ = ("_failing_since", "_patience_s")

    def __init__(self, seconds: float, patience_s: float) -> None:
        super().__init__(seconds)
        self._patience_s = patience_s
        self._failing_since: float | None = None

    @property
    def again_s(self) -> float:
        """How long there still is to begin again, since the first failure without progress."""
        if self._failing_since is None:
            return self.left_s
        return min(self.left_s, self._failing_since + self._patience_s - time.monotonic())

    def failed(self) -> None:
        """Note that an attempt failed."""
        self._failing_since = self._failing_since or time.monotonic()

    def progressed(self) -> None:
        """Note that something was reached that will not be lost again."""
        self._failing_since = None


class Told(Protocol):
    """The head of an answer."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, whatever the case of their names."""
        ...


class PostponedError(HTTPError):
    """Somebody on the way (a token server, a source) answered that it cannot do it now."""

    def __init__(self, answer: Told, who: str) -> None:
        super().__init__(f"{who}: status {answer.status}")
        self.answer = answer


T = TypeVar("T", bound=Told)


def repeat(
    attempt: Callable[[], T],
    doing: str,
    registry: str,
    deadline: Deadline,
    retried: Container[int] = RETRIED,
) -> T:
    """Call again what fails for a passing reason, until it works or time is up.

    Returns the last answer, which may be a failing one: of a status that is not `retried`, at once.

    Raises:
        RefusedError: the registry's certificate is not trusted.
        TemporaryError: the last attempt got no answer.
    """
    failure: HTTPError | None
    for number in itertools.count(1):
        try:
            answer = attempt()
        except HTTPError as error:
            failure, told = error, f"{type(error).__name__}: {error}"
            wait_s = pause_s(error, number, doing, registry)
        else:
            if answer.status not in retried:
                return answer
            failure, told = None, f"status {answer.status}"
            wait_s = max(_backoff_s(number), _asked_wait_s(answer))
        deadline.failed()
        if wait_s >= deadline.again_s:
            break
        log.info("%s: %s, again in %.1f s", doing, told, wait_s)
        time.sleep(wait_s)
    if failure is None:
        return answer
    if isinstance(failure, PostponedError):
        raise TemporaryError(f"{doing}: {failure}") from failure
    host = urlsplit(doing.rsplit(maxsplit=1)[-1]).netloc or registry
    raise TemporaryError(f"{doing}: no answer from {host} ({told[:200]})") from failure


def pause_s(error: HTTPError, number: int, doing: str, registry: str) -> float:
    """Return how long to wait after so many failures in a row, of which this is the last.

    Raises:
        RefusedError: the registry's certificate is not trusted.
    """
    _check_certificate(error, doing, registry)
    asked_s = _asked_wait_s(error.answer) if isinstance(error, PostponedError) else 0.0
    return max(_backoff_s(number), asked_s)


def _backoff_s(number: int) -> float:
    bound = min(BACKOFF_CAP_S, BACKOFF_S * 2 ** min(number - 1, 30))
    return random.uniform(0, bound)  # noqa: S311 - jitter


def _asked_wait_s(answer: Told) -> float:
    """Return how long a server asks to be left alone: so many seconds, or until a date."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        # A clock that ticks whole seconds may start them late.
        return float(text) + random.uniform(0, BACKOFF_S)  # noqa: S311 - jitter
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        until = parsedate_to_datetime(text).timestamp() - time.time()
        return max(0.0, until) + random.uniform(0, BACKOFF_S)  # noqa: S311 - jitter
    return 0.0


def _check_certificate(error: HTTPError, doing: str, registry: str) -> None:
    """Give up at once on a server that proves to be another, or that speaks no TLS."""
    cause = error.args[0] if isinstance(error, SSLError) and error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise RefusedError(
            f"{doing}: {error}: if {registry} has a private CA, set SSL_CERT_FILE to it"
        ) from error
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        raise RefusedError(f"{doing}: {registry} speaks no TLS: {error}") from error
