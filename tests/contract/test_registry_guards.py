"""Where a registry may send us, and for how long it may keep us."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

import curator
from curator.errors import (
    HostError,
    InputError,
    IntegrityError,
    RefusedError,
    TemporaryError,
)
from curator.oci import MANIFEST, Descriptor, Reference
from curator.registry import HttpRegistry
from curator.registry._guards import check_elsewhere, own_path
from tests import layouts
from tests.faults import Fault, FaultProxy, Kind, answer, matching
from tests.tokens import basic
from tests.wire import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from curator.settings import Place

SOON_S = 3.0


# Where to


PRIVATE = [
    "https://127.0.0.1/x",
    "https://127.8.9.10:8443/x",
    "https://localhost/x",
    "https://[::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://2130706433/x",
    "https://127.1/x",
    "https://0.0.0.0/x",
    "https://10.1.2.3/x",
    "https://172.16.0.1/x",
    "https://192.168.1.1/x",
    "https://100.64.0.1/x",
    "https://169.254.169.254/latest/meta-data",
    "https://168.63.129.16/x",
    "https://[fe80::1]/x",
    "https://[fd00:ec2::254]/x",
    "https://224.0.0.1/x",
]


def refusal(registry: str, address: str) -> str | None:
    """Return why a registry may not send us to an address, None if it may."""
    try:
        check_elsewhere(registry, urlsplit(address))
    except IntegrityError as error:
        return str(error)
    return None


@pytest.mark.parametrize("address", PRIVATE)
def test_a_registry_out_there_leads_to_no_private_address(address: str) -> None:
    assert "private" in str(refusal("registry.example", address))
    assert refusal("127.0.0.1:5000", address) is None  # it is in here itself
    assert refusal(urlsplit(address).netloc, address) is None  # as is this one


NEAR = [
    "https://10.9.8.7/x",
    "https://172.31.1.1:8443/x",
    "https://192.168.1.1/x",
    "https://100.64.0.1/x",
    "https://[fd12:3456::1]/x",
    "https://[::ffff:10.1.1.1]/x",
]


@pytest.mark.parametrize("registry", ["10.0.0.5", "192.168.7.7:5000", "[fd00::5]:443"])
def test_a_registry_of_a_private_network_leads_into_such_networks_and_no_further(
    registry: str,
) -> None:
    for address in NEAR:
        assert refusal(registry, address) is None
        assert "private" in str(refusal("8.8.8.8", address))
    assert refusal(registry, "https://8.8.8.8/x") is None
    for address in set(PRIVATE) - set(NEAR) - {"https://10.1.2.3/x", "https://172.16.0.1/x"}:
        assert "private" in str(refusal(registry, address))


@pytest.mark.parametrize("address", ["100.100.100.200", "192.0.0.192", "[fd20:ce::254]"])
def test_no_registry_but_one_that_is_there_leads_to_what_a_cloud_tells_a_machine(
    address: str,
) -> None:
    for registry in ("registry.example", "10.0.0.5", "[fd00::5]"):
        assert "private" in str(refusal(registry, f"https://{address}/x"))
    assert refusal(address, f"https://{address}:81/x") is None


def test_a_registry_is_in_here_by_any_of_its_names() -> None:
    assert refusal("127.1:5000", "https://127.0.0.1/x") is None
    assert "private" in str(refusal("127.1:5000", "https://10.0.0.5/x"))


@pytest.mark.parametrize("registry", ["registry.example", "127.0.0.1:5000"])
@pytest.mark.parametrize(
    "address", ["http://8.8.8.8/x", "http://registry.example/x", "file:///etc/passwd", "//x", "x"]
)
def test_only_https_leads_elsewhere(registry: str, address: str) -> None:
    assert "which is not https" in str(refusal(registry, address))


def test_plain_http_within_this_machine_is_for_registries_of_this_machine() -> None:
    here = "http://127.0.0.1:81/x"
    assert refusal("localhost:5000", here) is None
    assert "which is not https" in str(refusal("registry.example", here))


@pytest.mark.parametrize("address", ["https://8.8.8.8/x", "https://[2606:4700::1111]/x"])
def test_a_public_address_is_fine(address: str) -> None:
    assert refusal("registry.example", address) is None


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/v2/x?a=b", "/v2/x?a=b"),
        ("https://registry.example/v2/x", "/v2/x"),
        ("https://registry.example:443/v2/x", "/v2/x"),
        ("http://registry.example/v2/x", "/v2/x"),  # it does not know that a proxy adds TLS
    ],
)
def test_an_upload_goes_on_at_the_same_host(address: str, path: str) -> None:
    assert own_path("registry.example", "https://registry.example/", address) == path


@pytest.mark.parametrize(
    "address",
    [
        "https://other.example/x",
        "https://registry.example:8443/x",
        "https://registry.example@other.example/x",
        "https://other.example\\@registry.example/x",
        "//other.example/x",
        "https://registry.example.other.example/x",
        "https://registry..example/x",
        f"https://{'a' * 64}.example/x",
    ],
)
def test_an_upload_goes_on_at_no_other_host(address: str) -> None:
    with pytest.raises(IntegrityError):
        own_path("registry.example", "https://registry.example/", address)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("7?_state=x", "/v2/x/blobs/uploads/7?_state=x"),
        ("?_state=x", "/v2/x/blobs/uploads/?_state=x"),
        ("/other/7", "/other/7"),
    ],
)
def test_an_upload_goes_on_relative_to_where_it_was_asked_for(address: str, path: str) -> None:
    asked = "https://registry.example/v2/x/blobs/uploads/"
    assert own_path("registry.example", asked, address) == path


@pytest.fixture
def remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FaultProxy, HttpRegistry]]:
    """A registry with TLS on an address that is not loopback, and a client with its login."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.200", 9))  # sends nothing: asks for the route only
        except OSError as error:
            pytest.skip(f"this machine has no address but loopback: {error}")
        address = str(probe.getsockname()[0])
    tls, certificate = identity(address, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with FaultProxy(host=address, tls=tls) as server:
        auth = basic("ada", "secret").removeprefix("Basic ")
        auths = {server.address: {"auth": auth}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        yield server, HttpRegistry(tmp_path, deadline_s=1)


@pytest.mark.parametrize("way", ["token", "redirect", "upload", "page"])
def test_a_remote_registry_cannot_send_our_login_into_this_machine(
    way: str, remote: tuple[FaultProxy, HttpRegistry], tmp_path: Path
) -> None:
    server, registry = remote
    there = Reference(registry=server.address, repository="x")
    layout = layouts.image(tmp_path / "image", (b"layer",))
    with FaultProxy() as inside:
        inward = f"https://{inside.address}/secret"
        headers = {
            "token": {"WWW-Authenticate": f'Bearer realm="{inward}"'},
            "redirect": {"Location": inward},
            "upload": {"Location": inward},
            "page": {"Link": f'<{inward}>; rel="next"'},
        }[way]
        status = {"token": 401, "redirect": 307, "upload": 202, "page": 200}[way]
        led = answer(status, b'{"tags": []}', headers=headers)
        server.plan = lambda asked: answer(404) if asked.method == "HEAD" else led
        asks: dict[str, Callable[[], object]] = {
            "token": lambda: registry.tags(there),
            "redirect": lambda: registry.blob(there, Descriptor.of(b"{}", "x")),
            "upload": lambda: registry.push(layout.path, there.with_tag("one")),
            "page": lambda: registry.tags(there),
        }
        with pytest.raises(IntegrityError):
            asks[way]()
        assert inside.connections == 0


def test_a_server_without_tls_is_told_apart_from_one_that_is_down(tmp_path: Path) -> None:
    with FaultProxy(host="127.0.0.1") as server:
        port = server.address.rpartition(":")[2]
        there = Reference(registry=f"[::ffff:127.0.0.1]:{port}", repository="x", tag="one")
        start = time.monotonic()
        with pytest.raises(RefusedError, match="TLS"):
            HttpRegistry(tmp_path, deadline_s=20).resolve(there)
        assert time.monotonic() - start < SOON_S


def test_a_proxy_of_the_environment_is_asked_for_what_is_out_there(
    impatient: HttpRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(plan=lambda _: answer(403)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:s%20cret@{proxy.address}")
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        monkeypatch.setenv("NO_PROXY", "direct.invalid")
        there = Reference(registry="registry.example", repository="x", tag="one")
        with pytest.raises(TemporaryError, match=r"registry\.example"):
            impatient.resolve(there)
        assert set(proxy.asked) == {"CONNECT registry.example:443"}
        told = proxy.exchanges[0].request.headers["proxy-authorization"]
        assert told == basic("ada", "s cret")
        proxy.forget()
        for address in ("direct.invalid", "127.0.0.1:1"):
            with pytest.raises(TemporaryError):
                impatient.resolve(replace(there, registry=address))
        assert proxy.asked == []


PROXIES = ["socks5://127.0.0.1:1", "http://ada:s3cret@127.0.0.1:99999", "http://[::1", "http://"]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_that_is_none_is_told_at_once(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    there = Reference(registry="registry.invalid", repository="x", tag="one")
    start = time.monotonic()
    for ask in (
        lambda: HttpRegistry(tmp_path).resolve(there),
        lambda: curator.open_index("https://registry.invalid/", cache=None),
    ):
        with pytest.raises(HostError, match="HTTPS_PROXY is") as caught:
            ask()
        assert "s3cret" not in str(caught.value)
    assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_certificates_that_cannot_be_loaded_are_told_at_once(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    if text is not None:
        bundle.write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    there = Reference(registry="registry.invalid", repository="x", tag="one")
    start = time.monotonic()
    for ask in (
        lambda: HttpRegistry(tmp_path).resolve(there),
        lambda: curator.open_index("https://registry.invalid/", cache=None),
    ):
        with pytest.raises(HostError, match=r"SSL_CERT_FILE=.*bundle\.pem cannot be loaded"):
            ask()
    assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize(
    "registry", ["localhost:99999", "registry..example", f"{'a' * 70}.example"]
)
def test_what_is_no_host_is_told_at_once(registry: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError):
        HttpRegistry(tmp_path).resolve(Reference(registry=registry, repository="x", tag="one"))
    with pytest.raises(InputError):
        curator.open_index(f"https://{registry}/", cache=None)
    assert time.monotonic() - start < SOON_S


# For how long


DRIP = Fault(
    kind=Kind.ANSWER,
    headers={"Content-Type": MANIFEST},
    body=b" ",
    repeat=600,
    pause_s=0.05,
)


@pytest.fixture
def impatient(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=0.5)


def test_a_body_that_drips_is_not_waited_for(impatient: HttpRegistry) -> None:
    with FaultProxy(plan=lambda _: DRIP) as server:
        there = Reference(registry=server.address, repository="x", tag="one")
        for ask in (
            lambda: impatient.manifest(there),
            lambda: impatient.tags(there),
            lambda: impatient.blob(there, Descriptor.of(bytes(600), "x")),
        ):
            start = time.monotonic()
            with pytest.raises(TemporaryError):
                ask()
            assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "]
)
def test_headers_that_drip_or_never_end_are_not_waited_for(
    line: bytes, impatient: HttpRegistry
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                while not done.wait(0.02):
                    try:
                        connection.sendall(line if b"100" in line else b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        there = Reference(registry=f"127.0.0.1:{server.getsockname()[1]}", repository="x", tag="a")
        start = time.monotonic()
        with pytest.raises(TemporaryError):
            impatient.resolve(there)
        assert time.monotonic() - start < SOON_S
        done.set()
        thread.join()


def test_an_upload_that_is_never_answered_ends(
    impatient: HttpRegistry, registry_address: str, place: Place, tmp_path: Path
) -> None:
    layout = layouts.image(tmp_path / "image", (os.urandom(100_000),))
    target = place.repository("x").with_tag("one")
    with FaultProxy(registry_address) as proxy:
        slow = Fault(kind=Kind.LIE, delay_s=2.5)
        proxy.plan = matching("^PUT .*/blobs/", slow)
        start = time.monotonic()
        with pytest.raises(TemporaryError):
            impatient.push(layout.path, proxy.through(target))
        assert time.monotonic() - start < SOON_S
