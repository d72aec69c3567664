"""Where a registry may send us: what a server says of addresses is a claim, not an order.

- A path of its own stays on its own host: uploads, pages.
- Elsewhere (a token server, a network for blobs) is spoken to over https only, and it is no
  machine in here: a registry out there names no loopback, private or link-local address, by
  number or by name. Its own host is excepted: whoever names a registry knows where it is.
- A registry on this machine may also send to this machine, without TLS.

A name that moves to another address after it was looked at meets TLS: no machine in here has a
certificate for it.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from curator.errors import IntegrityError
from curator.wire import is_loopback

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_NAT64 = IPv6Network("64:ff9b::/96")
_AZURE_WIRE_SERVER = IPv4Address("168.63.129.16")


def joined(base: str, address: str) -> SplitResult:
    """Return the address that a server gives, relative to where it gives it.

    Raises:
        IntegrityError: it is no address, or one that programs read in different ways.
    """
    try:
        parts = urlsplit(urljoin(base, address))
        _ = parts.port
    except ValueError as error:
        raise IntegrityError(f"a server points to {address[:200]!r}, which is nowhere") from error
    if parts.netloc and not _HOST.fullmatch(parts.netloc):
        raise IntegrityError(f"a server points to {address[:200]!r}, which is no plain host")
    return parts


def own_path(registry: str, base: str, address: str) -> str:
    """Return the path of an address that has to be the registry's own.

    Raises:
        IntegrityError: it is another host's. (Behind a proxy many name `http` for their `https`;
            we stay with what we speak.)
    """
    here, url = urlsplit(base), joined(base, address)
    if url.hostname != here.hostname or url.port not in {None, here.port, _usual_port(here)}:
        raise IntegrityError(f"{registry} points to another host, {url.netloc[:200]}")
    return f"{url.path}?{url.query}" if url.query else url.path


def check_elsewhere(registry: str, target: SplitResult) -> None:
    """Refuse an address that this registry may not send us to.

    Raises:
        IntegrityError: it is not https, or leads into the network that we are in.
    """
    here = is_loopback(registry)
    plain = here and target.scheme == "http" and is_loopback(target.netloc)
    if target.scheme != "https" and not plain:
        raise IntegrityError(f"{registry} sends to {target.geturl()[:200]!r}, which is not https")
    host = target.hostname or ""
    if here or host == urlsplit(f"//{registry}").hostname:
        return
    for address in _addresses(host):
        if not _is_public(address):
            raise IntegrityError(f"{registry} sends to {host}, a private address ({address})")


def _usual_port(url: SplitResult) -> int:
    return 443 if url.scheme == "https" else 80


def _addresses(host: str) -> list[IPv4Address | IPv6Address]:
    """Return what a name stands for; nothing if it is unknown here: then no connection comes up."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast and address != _AZURE_WIRE_SERVER
