"""Where a registry may send us: what a server says of addresses is a claim, not an order.

- A path of its own stays on its own host: uploads, pages.
- Elsewhere (a token server, a network for blobs) is spoken to over https only, and it is no
  machine in here: a registry out there names no loopback, private or link-local address, by
  number or by name. Its own host is excepted: whoever names a registry knows where it is.
- A registry whose every address is in a private network may name others in such networks, as one
  behind a private link has its blobs there, and one of a company its token server. What is never
  reached so is this machine, and what only answers machines of a cloud about themselves.
- A registry on this machine may also send to this machine, without TLS.

A name that moves to another address after it was looked at meets TLS: no machine in here has a
certificate for it.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from curator.errors import IntegrityError
from curator.wire import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    Address = IPv4Address | IPv6Address

_HOST = re.compile(
    r"(?:[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_NAT64 = IPv6Network("64:ff9b::/96")
# RFC 1918, RFC 6598 (which is_private leaves out), RFC 4193.
_NETWORKS = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
# Where clouds tell a machine of itself, or give it its rights, outside of the link-local range.
_METADATA = frozenset(
    ip_address(text)
    for text in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)


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
    own = urlsplit(f"//{registry}").hostname or ""
    if here or host == own:
        return
    for address in _addresses(host):
        if not (_is_public(address) or _is_near(address, _addresses(own))):
            raise IntegrityError(f"{registry} sends to {host}, a private address ({address})")


def _is_near(address: Address, own: Sequence[Address]) -> bool:
    """Say whether an address in here is one that a registry at these addresses may name."""
    if not own or any(map(_is_public, own)):
        return False
    return address in own or all(map(_is_private, (address, *own)))


def _usual_port(url: SplitResult) -> int:
    return 443 if url.scheme == "https" else 80


def _addresses(host: str) -> list[Address]:
    """Return what a name stands for; nothing if it is unknown here: then no connection comes up."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def _is_public(address: Address) -> bool:
    meant = _inner(address)
    return meant.is_global and not meant.is_multicast and meant not in _METADATA


def _is_private(address: Address) -> bool:
    meant = _inner(address)
    return meant not in _METADATA and any(meant in network for network in _NETWORKS)


def _inner(address: Address) -> Address:
    """Return the address that packets to this one reach in the end."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner or address
    return address
