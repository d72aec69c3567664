"""What an error of Azure's SDK means, told without the address or the secret that it quotes.

Source: learn.microsoft.com/rest/api/storageservices/blob-service-error-codes, RFC 9110 section
10.2.3 (Retry-After).
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import requests
from azure.core.exceptions import ClientAuthenticationError

from curator.errors import (
    CuratorError,
    HostError,
    IntegrityError,
    RefusedError,
    TemporaryError,
)

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError

BACKOFF_S: Final = 0.1
BACKOFF_CAP_S: Final = 10.0
MAX_TOLD: Final = 200

NO_CONTAINER: Final = "ContainerNotFound"
_ABSENT = frozenset({NO_CONTAINER, "BlobNotFound", "ResourceNotFound"})
# The last one: what may create and not overwrite is told so where there is something already.
_UNMET = frozenset(
    {"BlobAlreadyExists", "BlobNotFound", "ConditionNotMet", "UnauthorizedBlobOverwrite"}
)
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset({"ContainerBeingDeleted"})
_UNTRUSTED = "certificate"
_NO_LOGIN = "login"
_STRANGE = "answer"
_REJECTED: tuple[type[CuratorError], str] = (
    HostError,
    (
        "what should open {place} is not accepted: check that it belongs to this account and has "
        "not expired, and this machine's clock"
    ),
)
_BY_CODE: dict[str, tuple[type[CuratorError], str]] = {
    _STRANGE: (IntegrityError, ""),
    _UNTRUSTED: (RefusedError, "for a private CA, set SSL_CERT_FILE to its certificate"),
    _NO_LOGIN: (
        HostError,
        (
            "nothing opens {place}: set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_KEY, or log in "
            "with `az login`"
        ),
    ),
    NO_CONTAINER: (HostError, "create the container of {place}"),
    "KeyBasedAuthenticationNotPermitted": (
        HostError,
        "the account takes no keys: log in with `az login`",
    ),
    "AuthenticationFailed": _REJECTED,
    "InvalidAuthenticationInfo": _REJECTED,
    "NoAuthenticationInformation": _REJECTED,
}
_BY_STATUS: dict[int, tuple[type[CuratorError], str]] = {
    401: _REJECTED,
    403: (
        RefusedError,
        (
            "it takes the rights to read, add, create, write and list (a signature with sp=racwl, "
            "or the role Storage Blob Data Contributor), and a network that the account lets in"
        ),
    ),
}
_QUERY = re.compile(r"\?\S*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that is none, or not the one hoped for.

    No `status`: there was no answer. `asked_s` is how long the service asked us to wait.
    """

    status: int | None
    code: str
    told: str
    asked_s: float | None = None

    @property
    def passing(self) -> bool:
        """Whether the same request may work in a moment."""
        if self.status is None:
            return not self.code
        return self.status in _PASSING or self.code in _PASSING_CODES

    @property
    def absent(self) -> bool:
        """Whether the service says that there is no such document, or no such container."""
        return self.status == 404 and self.code in _ABSENT  # noqa: PLR2004

    @property
    def unmet(self) -> bool:
        """Whether the condition of a write did not hold."""
        return self.code in _UNMET

    def wait_s(self, attempt: int) -> float:
        """Return how long to wait after an attempt, counted from 1: what is asked, at least."""
        if self.asked_s is None:
            return backoff_s(attempt)
        return self.asked_s + backoff_s(1)

    def error(self, doing: str, place: str) -> CuratorError:
        """Return what it means for a caller, with what to do."""
        kind, advice = self._meaning
        message = f"cannot {doing}: {self.told}"
        return kind(f"{message}: {advice.format(place=place)}" if advice else message)

    @property
    def _meaning(self) -> tuple[type[CuratorError], str]:
        if self.passing:
            return TemporaryError, "nothing is lost, try again"
        refused: tuple[type[CuratorError], str] = (RefusedError, "")
        return _BY_CODE.get(self.code) or _BY_STATUS.get(self.status or 0) or refused


STRANGE: Final = Failure(status=None, code=_STRANGE, told="that is no answer of blob storage")


def failure_of(error: AzureError) -> Failure:
    """Return what an error of the SDK says, without its address."""
    response = getattr(error, "response", None)
    if isinstance(error, ClientAuthenticationError) and not hasattr(error, "error_code"):
        return Failure(status=None, code=_NO_LOGIN, told="no login was found")
    if response is None:
        code = _UNTRUSTED if _is_untrusted(error) else ""
        return Failure(status=None, code=code, told=_told(error))
    code = getattr(error, "error_code", None) or ""
    code = str(getattr(code, "value", code))
    status = int(response.status_code)
    if status < 300:  # noqa: PLR2004 - an answer that broke off comes without a response
        return STRANGE
    told = f"status {status} {code}".strip()
    asked_s = _asked_s(response.headers.get("Retry-After") or "")
    return Failure(status=status, code=code, told=told, asked_s=asked_s)


def backoff_s(attempt: int) -> float:
    """Return a random time to wait after an attempt, counted from 1: full jitter."""
    return random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2**attempt))  # noqa: S311 - jitter


def _asked_s(text: str) -> float | None:
    """Return the seconds that a Retry-After asks for, given in seconds or as a date."""
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _is_untrusted(error: AzureError) -> bool:
    return isinstance(error.inner_exception, requests.exceptions.SSLError)


def _told(error: AzureError) -> str:
    """Return the innermost reason: it is about the connection, not about an address."""
    cause: object = error.inner_exception or error
    while isinstance(cause, BaseException) and cause.args:
        inner = getattr(cause.args[0], "reason", None) or cause.args[0]
        if not isinstance(inner, BaseException):
            break
        cause = inner
    return f"{type(cause).__name__}: {_QUERY.sub('', str(cause))}"[:MAX_TOLD]
