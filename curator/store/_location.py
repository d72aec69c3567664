"""What the place of a store is called: a directory, or a container of Azure Blob Storage.

- A secret is in no `repr` and in no message: `shown` is how a location may be told to people.
- What opens one account is sent to no other: a connection string counts for its own endpoint alone.
- Nothing here opens a connection or reads the environment.

Source: learn.microsoft.com/azure/storage/common/storage-configure-connection-string.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from curator.errors import Diagnostic, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTION: Final = "AZURE_STORAGE_CONNECTION_STRING"
SAS: Final = "AZURE_STORAGE_SAS_TOKEN"
KEY: Final = "AZURE_STORAGE_KEY"
ACCOUNT: Final = "AZURE_STORAGE_ACCOUNT"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTAINER = re.compile(r"\$web|(?=.{3,63}\Z)[a-z0-9](-?[a-z0-9])+")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_QUERY = re.compile(r"\?\S*")
_EXAMPLES = "a directory, https://ACCOUNT.blob.core.windows.net/CONTAINER or azure:CONTAINER"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureLocation:
    """A container, or what is below a prefix in it, and what opens it.

    `endpoint` is the account's URL. With neither `sas` nor `key` the login of this machine opens
    it (azure-identity).
    """

    endpoint: str
    account: str
    container: str
    prefix: str
    sas: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        parts = (self.endpoint, self.container, self.prefix)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """A storage account as a connection string describes it."""

    name: str
    endpoint: str
    sas: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


def shown(location: str) -> str:
    """Return a location without its query, which may be a secret."""
    return _QUERY.sub("", location)


def parse_location(location: str, environ: Mapping[str, str]) -> Path | AzureLocation:
    """Return what a location means.

    Raises:
        InputError: it is no place of a store, or what should open it is malformed or missing.
    """
    match = _SCHEME.match(location)
    scheme = match[1].lower() if match else ""
    if scheme in {"http", "https"}:
        return _from_url(location, environ)
    if scheme == "azure":
        return _from_connection(location, environ)
    if scheme or not location or "\0" in location:
        hint = f"name {_EXAMPLES}; a directory with a colon in its name is ./NAME"
        raise _wrong(f"not a place for a store: {shown(location)!r}", hint)
    return Path(location)


def _from_connection(location: str, environ: Mapping[str, str]) -> AzureLocation:
    account = _connection(environ)
    if account is None:
        hint = f"set {CONNECTION}; `curator engine up --azurite` starts an emulator and prints one"
        raise _wrong(f"{shown(location)} needs the connection string of an account", hint)
    container, prefix = _inside(location.partition(":")[2], location)
    return AzureLocation(
        endpoint=account.endpoint,
        account=account.name,
        container=container,
        prefix=prefix,
        sas=account.sas,
        key=account.key,
    )


def _from_url(location: str, environ: Mapping[str, str]) -> AzureLocation:
    parts = _split_url(location)
    host = parts.hostname or ""
    path = parts.path.lstrip("/")
    endpoint = f"{parts.scheme}://{parts.netloc}"
    account = _named(host) or environ.get(ACCOUNT) or host.partition(".")[0]
    if _is_address(host):
        # An emulator's account is the first part of the path.
        account, _, path = path.partition("/")
        endpoint = f"{endpoint}/{account}"
    container, prefix = _inside(path, location)
    sas, key = _credentials(parts.query, account, endpoint, environ)
    if parts.scheme == "http" and not sas and not key:
        raise _wrong(f"nothing opens {shown(location)}", f"set {CONNECTION}, {KEY} or {SAS}")
    return AzureLocation(
        endpoint=endpoint, account=account, container=container, prefix=prefix, sas=sas, key=key
    )


def _split_url(location: str) -> SplitResult:
    try:
        parts = urlsplit(location)
        _ = parts.port
    except ValueError:
        raise _wrong("a store's address is malformed", f"name {_EXAMPLES}") from None
    if parts.username is not None or parts.password is not None or parts.fragment:
        hint = f"a credential comes from {SAS} or {KEY}"
        raise _wrong("a store's address has no user, password or fragment", hint)
    _check_encrypted(parts)
    return parts


def _check_encrypted(parts: SplitResult) -> None:
    if not parts.hostname:
        raise _wrong("a store's address names no host", f"name {_EXAMPLES}")
    if parts.scheme != "https" and not _is_loopback(parts.hostname):
        raise _wrong(f"{parts.netloc} over plain http: what opens it could be read", "use https")


def _named(host: str) -> str | None:
    """Return the account that a host is named by: `ACCOUNT.blob.core.windows.net`, in any cloud.

    A domain of one's own names none.
    """
    account, _, rest = host.partition(".")
    return account if "blob" in rest.split(".") else None


def _credentials(
    query: str, account: str, endpoint: str, environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the SAS or the key that opens an account; the address's own comes first."""
    if query:
        return _checked_sas(query, "the address's query"), None
    if environ.get(ACCOUNT) in {None, "", account}:
        if token := environ.get(SAS):
            return _checked_sas(token.removeprefix("?"), SAS), None
        if key := environ.get(KEY):
            return None, _checked_key(key, KEY)
    known = _connection(environ)
    if known is None or known.name != account or _server(known.endpoint) != _server(endpoint):
        return None, None
    return known.sas, known.key


def _server(endpoint: str) -> tuple[str, str | None, int | None, str]:
    """Return what makes two endpoints the same: the server and, of an emulator, the account."""
    parts = urlsplit(endpoint)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path


def _connection(environ: Mapping[str, str]) -> _Account | None:
    text = environ.get(CONNECTION)
    if not text:
        return None
    pairs = [item.partition("=") for item in text.strip().split(";") if item]
    known = {name.strip().lower(): value for name, _, value in pairs}
    endpoint = known.get("blobendpoint", "").rstrip("/")
    if not endpoint and known.get("accountname"):
        suffix = known.get("endpointsuffix") or "core.windows.net"
        scheme = known.get("defaultendpointsprotocol") or "https"
        endpoint = f"{scheme}://{known['accountname']}.blob.{suffix}"
    sas, key = known.get("sharedaccesssignature"), known.get("accountkey")
    if not endpoint or not (sas or key):
        hint = "copy it whole: `az storage account show-connection-string --name ACCOUNT`"
        raise _wrong(f"{CONNECTION} names no account, or nothing that opens it", hint)
    parts = _split_url(endpoint)
    return _Account(
        name=known.get("accountname") or _account_of(parts),
        endpoint=endpoint,
        sas=_checked_sas(sas, CONNECTION) if sas and not key else None,
        key=_checked_key(key, CONNECTION) if key else None,
    )


def _account_of(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return parts.path.strip("/") if _is_address(host) else host.partition(".")[0]


def _inside(path: str, location: str) -> tuple[str, str]:
    """Return container and prefix."""
    container, _, prefix = path.strip("/").partition("/")
    if not _CONTAINER.fullmatch(container):
        hint = "a container's name has 3 to 63 lower case letters, digits and single hyphens"
        raise _wrong(f"{shown(location)} names no container", hint)
    if prefix and not _PREFIX.fullmatch(prefix):
        hint = "letters, digits, '.', '_' and '-', in parts that do not begin with a dot"
        raise _wrong(f"{shown(location)}: not a prefix: {shown(prefix)!r}", hint)
    return container, prefix


def _checked_sas(token: str, where: str) -> str:
    if "sig" not in parse_qs(token):
        hint = "a shared access signature has sv=, sp= and sig="
        raise _wrong(f"{where} is no shared access signature", hint)
    return token


def _checked_key(key: str, where: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(f"the account key of {where} is not base64", "copy it whole") from None
    return key


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _is_address(host: str) -> bool:
    """Whether a host is no name that an account could be part of."""
    with contextlib.suppress(ValueError):
        ip_address(host)
        return True
    return host == "localhost"


def _wrong(message: str, hint: str) -> InputError:
    return InputError(Diagnostic(code="store", message=message, hint=hint))
