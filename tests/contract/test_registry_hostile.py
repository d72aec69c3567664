"""Servers that lie: each lie ends in an error of ours, soon, and costs little memory."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from curator.errors import CuratorError, IntegrityError
from curator.oci import CONFIG, INDEX, MANIFEST, Descriptor, Reference, sha256
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import Fault, FaultProxy, Kind, always, answer
from tests.tokens import basic
from tests.wire import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.faults import Plan, Request


MIB = 1024 * 1024
DIGEST = sha256(b"asked for")
OTHER_HOST = "http://192.0.2.200:5000/elsewhere"
TYPED = {"Content-Type": MANIFEST}
LISTED = {"Content-Type": INDEX}
LINK = {"Link": '</v2/x/tags/list?n=2&last=b>; rel="next"'}


def text(value: object, headers: dict[str, str] | None = None) -> Fault:
    return answer(200, json.dumps(value).encode(), headers=headers or TYPED)


def bearer(realm: str) -> Fault:
    return answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})


LIES: dict[str, Fault] = {
    "html": answer(200, b"<html>hotel network</html>", headers={"Content-Type": "text/html"}),
    "nothing": answer(200),
    "no-type": answer(200, b"{}"),
    "no-content": answer(204),
    "teapot": answer(418, b"short and stout"),
    "number": text(5),
    "list": text([]),
    "null-fields": text({"config": None, "layers": None}),
    "null-layer": text({"config": Descriptor.of(b"", CONFIG).to_json(), "layers": [None]}),
    "null-children": text({"manifests": [None]}, LISTED),
    "text-children": text({"manifests": "x"}, LISTED),
    "path-children": text(
        {"manifests": [{"mediaType": INDEX, "digest": "sha256:../x", "size": 1}]}, LISTED
    ),
    "deep": answer(200, b"[" * 100_000, headers=TYPED),
    "latin": answer(200, b'{"tags": ["\xff"]}', headers=TYPED),
    "tags-number": text({"tags": 5}),
    "tags-mixed": text({"tags": ["a", 1, None]}),
    "digest-text": answer(200, headers=TYPED | {"Docker-Content-Digest": "sha256:zz"}),
    "digest-path": answer(200, headers=TYPED | {"Docker-Content-Digest": "../../etc/passwd"}),
    "digest-other": answer(200, b"{}", headers=TYPED | {"Docker-Content-Digest": DIGEST}),
    "length-text": answer(
        200,
        headers=TYPED
        | {"Connection": "close", "Content-Length": "many", "Docker-Content-Digest": DIGEST},
    ),
    "gzip": answer(200, b"not gzip", headers=TYPED | {"Content-Encoding": "gzip"}),
    "realm-none": answer(401, headers={"WWW-Authenticate": "Bearer"}),
    "realm-empty": bearer(""),
    "realm-file": bearer("file:///etc/passwd"),
    "realm-plain": bearer("http://192.0.2.200/token"),
    "realm-bracket": bearer("https://["),
    "realm-port": bearer("http://127.0.0.1:99999999/token"),
    "realm-loop": bearer("http://127.0.0.1:1/token"),
    "challenge-noise": answer(401, headers={"WWW-Authenticate": "basic,, bearer ,=" * 400}),
    "redirect-none": answer(307),
    "redirect-host": answer(307, headers={"Location": OTHER_HOST}),
    "redirect-file": answer(307, headers={"Location": "file:///etc/passwd"}),
    "redirect-bracket": answer(307, headers={"Location": "http://["}),
    "redirect-loop": answer(307, headers={"Location": "/v2/x/blobs/again"}),
    "wait-negative": answer(429, retry_after="-5"),
    "wait-words": answer(503, retry_after="a while"),
    "wait-digits": answer(503, retry_after="9" * 400),
    "wait-year": answer(503, retry_after="Fri, 31 Dec 99999999999999999999 23:59:59 GMT"),
}
LOCATIONS = {
    "none": None,
    "host": OTHER_HOST,
    "slashes": "//192.0.2.200/x",
    "file": "file:///etc/passwd",
    "bracket": "http://[",
}


@pytest.fixture
def registry(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=0.5)


@pytest.fixture
def liar() -> Iterator[FaultProxy]:
    with FaultProxy() as running:
        yield running


def verbs(
    registry: HttpRegistry, there: Reference, tmp_path: Path
) -> dict[str, Callable[[], object]]:
    layout = layouts.attested(tmp_path / "layout", (b"layer",))
    image = there.with_digest(DIGEST)
    return {
        "resolve": lambda: registry.resolve(there.with_tag("one")),
        "manifest": lambda: registry.manifest(there.with_tag("one")),
        "manifest by digest": lambda: registry.manifest(image),
        "blob": lambda: registry.blob(there, Descriptor(media_type="x", digest=DIGEST, size=9)),
        "tags": lambda: registry.tags(there),
        "tag": lambda: registry.tag(there.with_tag("one"), "two"),
        "copy": lambda: registry.copy(there.with_tag("one"), there),
        "push": lambda: registry.push(layout.path, there.with_tag("one")),
    }


def escapes(ask: Callable[[], object]) -> str | None:
    """Tell what a call raises that is no error of ours about the registry, or that it is late."""
    start = time.monotonic()
    try:
        ask()
    except CuratorError as error:
        if error.exit_code == 2:
            return f"blames the input: {error}"
    except Exception as error:  # noqa: BLE001 - what escapes is what is looked for
        return repr(error)
    return "too late" if time.monotonic() - start > 10 else None


@pytest.mark.parametrize("name", LIES)
def test_lie(name: str, registry: HttpRegistry, liar: FaultProxy, tmp_path: Path) -> None:
    liar.plan = always(LIES[name])
    there = Reference(registry=liar.address, repository="x")
    outcomes = {verb: escapes(ask) for verb, ask in verbs(registry, there, tmp_path).items()}
    gc.collect()  # a connection that was lost warns here, not in a later test
    assert {verb: outcome for verb, outcome in outcomes.items() if outcome} == {}


@pytest.mark.parametrize("name", LOCATIONS)
def test_upload_sent_away(
    name: str, registry: HttpRegistry, liar: FaultProxy, tmp_path: Path
) -> None:
    location = LOCATIONS[name]
    begun = answer(202, headers={"Location": location} if location else {})
    liar.plan = lambda request: begun if request.method == "POST" else answer(404)
    there = Reference(registry=liar.address, repository="x")
    assert escapes(verbs(registry, there, tmp_path)["push"]) is None
    layout = layouts.image(tmp_path / "again", (b"layer",))
    with pytest.raises(CuratorError):
        registry.push(layout.path, there.with_tag("one"))


# Too much


def flood(status: int, headers: Mapping[str, str] | None = None) -> Fault:
    return Fault(
        kind=Kind.ANSWER, status=status, headers=headers or TYPED, body=bytes(MIB), repeat=1024
    )


FLOODS: dict[str, Plan] = {
    "good": always(flood(200)),
    "refused": always(flood(403)),
    "missing": always(flood(404)),
    "challenge": always(flood(401, {"WWW-Authenticate": 'Basic realm="x"'})),
    "endless": always(flood(200, TYPED | {"Content-Length": str(1024 * MIB)})),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(name: str, registry: HttpRegistry, liar: FaultProxy, tmp_path: Path) -> None:
    """A gigabyte is refused after a little of it; what the kernel buffers is sent anyway."""
    liar.plan = FLOODS[name]
    there = Reference(registry=liar.address, repository="x")
    calls = verbs(registry, there, tmp_path)
    tracemalloc.start()
    for ask in calls.values():
        with contextlib.suppress(CuratorError):  # "not found" is an answer
            ask()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(exchange.sent for exchange in liar.exchanges) < 32 * MIB
    # The server's own MiB is in there.
    assert peak < 32 * MIB


def test_a_token_server_that_floods_is_refused(registry: HttpRegistry, liar: FaultProxy) -> None:
    challenge = bearer(f"http://{liar.address}/token")
    liar.plan = lambda asked: flood(200) if asked.path.startswith("/token") else challenge
    with pytest.raises(IntegrityError, match="more than"):
        registry.resolve(Reference(registry=liar.address, repository="x", tag="one"))
    assert max(exchange.sent for exchange in liar.exchanges) < 32 * MIB


def test_a_repository_may_have_thousands_of_tags(registry: HttpRegistry, liar: FaultProxy) -> None:
    names = [sha256(b"%d" % number).removeprefix("sha256:") for number in range(5000)]
    liar.plan = always(text({"name": "x", "tags": names}))
    assert registry.tags(Reference(registry=liar.address, repository="x")) == tuple(sorted(names))


def test_tags_come_page_by_page(registry: HttpRegistry, liar: FaultProxy) -> None:
    first = text({"name": "x", "tags": ["a", "b"]}, LINK)
    rest = text({"name": "x", "tags": ["c"]})
    liar.plan = lambda asked: rest if "last=b" in asked.path else first
    assert registry.tags(Reference(registry=liar.address, repository="x")) == ("a", "b", "c")


@pytest.mark.parametrize(
    "link", [f"<{OTHER_HOST}>", "<http://[>", "</v2/x/tags/list>", "<>", "</v2/y/tags/list?n=1>"]
)
def test_pages_that_loop_or_lead_elsewhere_are_refused(
    link: str, registry: HttpRegistry, liar: FaultProxy
) -> None:
    liar.plan = always(text({"name": "x", "tags": ["a"]}, {"Link": f'{link}; rel="next"'}))
    with pytest.raises(IntegrityError):
        registry.tags(Reference(registry=liar.address, repository="x"))
    assert len(liar.exchanges) == 1


def test_pages_without_an_end_are_refused(registry: HttpRegistry, liar: FaultProxy) -> None:
    def page(request: Request) -> Fault:
        following = f'</v2/x/tags/list?last={request.number}>; rel="next"'
        return text({"name": "x", "tags": ["a"]}, {"Link": following})

    liar.plan = page
    with pytest.raises(IntegrityError, match="1000 pages"):
        registry.tags(Reference(registry=liar.address, repository="x"))
    assert len(liar.exchanges) == 1000


# Who may see what


def logged_in(directory: Path, address: str) -> HttpRegistry:
    directory.mkdir()
    auth = basic("ada", "secret").removeprefix("Basic ")
    (directory / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    return HttpRegistry(directory, deadline_s=0.5)


def test_a_redirect_carries_no_login_to_another_host(liar: FaultProxy, tmp_path: Path) -> None:
    blob = b"on a content network"
    challenge = answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with FaultProxy(plan=always(answer(200, blob))) as network:
        away = answer(307, headers={"Location": f"http://{network.address}/blob?signature=1"})
        liar.plan = lambda asked: away if "authorization" in asked.headers else challenge
        registry = logged_in(tmp_path / "docker", liar.address)
        there = Reference(registry=liar.address, repository="x")
        assert registry.blob(there, Descriptor.of(blob, "x")) == blob
        assert network.asked == ["GET /blob?signature=1"]
        assert "authorization" not in network.exchanges[0].request.headers


def hopping(hops: int, blob: bytes) -> Plan:
    """Redirect so many times, then give a blob."""

    def plan(asked: Request) -> Fault:
        path, _, hop = asked.path.partition("?hop=")
        if int(hop or 0) == hops:
            return answer(200, blob)
        return answer(307, headers={"Location": f"{path}?hop={int(hop or 0) + 1}"})

    return plan


def test_some_redirects_are_followed_and_not_for_ever(liar: FaultProxy, tmp_path: Path) -> None:
    blob, there = b"on a content network", Reference(registry=liar.address, repository="x")
    registry = logged_in(tmp_path / "docker", liar.address)
    for hops in (2, 5):
        liar.plan = hopping(hops, blob)
        assert registry.blob(there, Descriptor.of(blob, "x")) == blob
        assert registry.has(there, Descriptor.of(blob, "x"))
    liar.plan = hopping(6, blob)
    with pytest.raises(IntegrityError, match="redirected more than 5 times"):
        registry.blob(there, Descriptor.of(blob, "x"))


def test_a_redirect_within_a_registry_keeps_its_login(liar: FaultProxy, tmp_path: Path) -> None:
    blob, there = b"elsewhere in here", Reference(registry=liar.address, repository="x")
    challenge = answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    led = hopping(1, blob)
    liar.plan = lambda asked: led(asked) if "authorization" in asked.headers else challenge
    registry = logged_in(tmp_path / "docker", liar.address)
    assert registry.blob(there, Descriptor.of(blob, "x")) == blob


def test_who_leads_back_into_a_registry_does_not_use_our_login(
    liar: FaultProxy, tmp_path: Path
) -> None:
    challenge = answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    back = answer(307, headers={"Location": f"http://{liar.address}/secret"})
    with FaultProxy(plan=always(back)) as network:
        away = answer(307, headers={"Location": f"http://{network.address}/"})
        liar.plan = lambda asked: away if "authorization" in asked.headers else challenge
        registry = logged_in(tmp_path / "docker", liar.address)
        with pytest.raises(CuratorError):
            registry.blob(Reference(registry=liar.address, repository="x"), Descriptor.of(b"", "x"))
        told = [e.request for e in liar.exchanges if e.request.path == "/secret"]
        assert [request.headers.get("authorization") for request in told] == [None]


def test_every_redirect_is_looked_at(liar: FaultProxy, tmp_path: Path) -> None:
    with FaultProxy(plan=always(answer(307, headers={"Location": OTHER_HOST}))) as network:
        liar.plan = always(answer(307, headers={"Location": f"http://{network.address}/blob"}))
        registry = logged_in(tmp_path / "docker", liar.address)
        there = Reference(registry=liar.address, repository="x")
        with pytest.raises(IntegrityError, match="not https"):
            registry.blob(there, Descriptor.of(b"x", "x"))
        assert len(network.asked) == 1


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.200", 9))  # sends nothing: asks for the route only
        except OSError as error:
            pytest.skip(f"this machine has no address but loopback: {error}")
        return str(probe.getsockname()[0])


def test_only_loopback_is_spoken_to_without_tls(own_address: str, tmp_path: Path) -> None:
    first: list[bytes] = []
    with socket.create_server((own_address, 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection, server:  # one connection is enough
                first.append(connection.recv(16))

        thread = threading.Thread(target=listen)
        thread.start()
        address = f"{own_address}:{server.getsockname()[1]}"
        registry = logged_in(tmp_path / "docker", address)
        with pytest.raises(CuratorError, match=own_address):
            registry.resolve(Reference(registry=address, repository="x", tag="one"))
        thread.join()
    assert first[0][:1] == b"\x16"  # a TLS handshake


def test_the_certificate_must_be_of_an_authority_that_ssl_cert_file_names(
    own_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, certificate = identity(own_address, tmp_path)
    with FaultProxy(plan=always(answer(404)), host=own_address, tls=tls) as server:
        there = Reference(registry=server.address, repository="x", tag="one")
        with pytest.raises(CuratorError, match=r"(?i)certificate"):
            logged_in(tmp_path / "a", server.address).resolve(there)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert logged_in(tmp_path / "b", server.address).resolve(there) is None
        assert len(server.asked) == 1
