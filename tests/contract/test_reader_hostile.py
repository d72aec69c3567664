"""The reader against servers that do their worst: typed errors, soon."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import curator
from curator.errors import (
    CuratorError,
    InputError,
    IntegrityError,
    RefusedError,
    TemporaryError,
)
from curator.index import CONFIG_PATH
from tests.readers import EMPTY, kind_of, new_farm, opened, trusting
from tests.serving import Reply, Site, served
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.publishing import Farm
    from tests.wire import Handler


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024
PATIENCE_S, LASTS_S = 0.5, 3.0
KINDS = ("head", "config", "gen", "group", "shard")


@pytest.fixture(scope="module", autouse=True)
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with trusting(tmp_path_factory.mktemp("tls")):
        yield


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A signed index that nobody changes."""
    return new_farm(tmp_path_factory.mktemp("still"), new_signer())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# Answers that do not end


def _forever(first: bytes, piece: bytes, pause_s: float = 0.05) -> Callable[[Handler], None]:
    def serve(handler: Handler) -> None:
        ends = time.monotonic() + LASTS_S
        with contextlib.suppress(OSError):
            handler.wfile.write(first)
            while time.monotonic() < ends:
                handler.wfile.write(piece)
                time.sleep(pause_s)
        handler.reset()

    return serve


NOTHING = gzip.compress(b"")
LENGTH = b"Content-Length: 10000000000\r\n"
ENDLESS = {
    "silence": _forever(b"", b""),
    "body": _forever(OK + LENGTH + b"\r\n", b" ", 0.2),
    "chunks": _forever(CHUNKED, b"1\r\n \r\n", 0.2),
    "status line": _forever(b"HTTP/1.1 200 ", b"O"),
    "headers": _forever(OK + b"X: ", b"x"),
    "interim answers": _forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk size": _forever(CHUNKED + b"1", b"0"),
    "trailers": _forever(CHUNKED + b"1\r\n{\r\n0\r\n", b"a: b\r\n"),
    "gzip of nothing": _forever(OK + b"Content-Encoding: gzip\r\n" + LENGTH + b"\r\n", NOTHING),
}


@pytest.fixture(scope="module")
def waited() -> Mapping[str, tuple[object, float]]:
    """What comes of each answer that does not end, and after how many seconds; all at once."""

    def wait(kind: str) -> tuple[object, float]:
        with served(ENDLESS[kind]) as address:
            began = time.monotonic()
            try:
                opened(address, timeout_s=PATIENCE_S).close()
            except CuratorError as error:
                return type(error), time.monotonic() - began
            return None, time.monotonic() - began

    with ThreadPoolExecutor(len(ENDLESS)) as threads:
        return dict(zip(ENDLESS, threads.map(wait, ENDLESS), strict=True))


@pytest.mark.parametrize("kind", ENDLESS)
def test_no_answer_is_waited_for_beyond_the_deadline(
    waited: Mapping[str, tuple[object, float]], kind: str
) -> None:
    outcome, seconds = waited[kind]
    assert outcome is TemporaryError
    assert seconds < LASTS_S - 1


# Answers that are none


def _to(location: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"


def _encoded(coding: bytes, data: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(data)
    return OK + b"Content-Encoding: " + coding + b"\r\n" + length + b"\r\n" + data


LIES: dict[str, tuple[bytes, type[CuratorError]]] = {
    "nothing": (b"", TemporaryError),
    "no http": (b"SSH-2.0-OpenSSH_9\r\n", TemporaryError),
    "bytes": (bytes(range(256)) * 8, TemporaryError),
    "another http": (b"HTTP/9.9 200 OK\r\n\r\n{}", TemporaryError),
    "no status": (b"HTTP/1.1 abc OK\r\n\r\n", TemporaryError),
    "many headers": (OK + b"a: b\r\n" * 200 + b"\r\n", TemporaryError),
    "long header": (OK + b"a: " + b"b" * 70_000 + b"\r\n\r\n", TemporaryError),
    "two lengths": (OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc", TemporaryError),
    "half": (OK + b"Content-Length: 300\r\n\r\n{", TemporaryError),
    "half a chunk": (CHUNKED + b"50\r\nabc", TemporaryError),
    "chunk of words": (CHUNKED + b"zz\r\nabc", TemporaryError),
    "chunk below nothing": (CHUNKED + b"-5\r\nabc\r\n0\r\n\r\n", TemporaryError),
    "wait for ever": (
        b"HTTP/1.1 503 x\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n",
        TemporaryError,
    ),
    "wait until never": (
        b"HTTP/1.1 503 x\r\nRetry-After: Fri, 99 Xxx 99999 99:99:99\r\n\r\n",
        TemporaryError,
    ),
    "length below nothing": (OK + b"Content-Length: -1\r\n\r\nabc", IntegrityError),
    "no coding": (_encoded(b"gzip", b"abc"), IntegrityError),
    "half a coding": (_encoded(b"gzip", gzip.compress(b"{}")[:15]), IntegrityError),
    "twenty codings": (_encoded(b", ".join([b"gzip"] * 20), b"abc"), IntegrityError),
    "unknown coding": (_encoded(b"\xff", b"abc"), IntegrityError),
    "page": (OK + b"Content-Type: text/html\r\n\r\n<html>hotel</html>", IntegrityError),
    "list": (OK + b"\r\n[]", IntegrityError),
    "UTF-16": (OK + b"\r\n" + "{}".encode("utf-16"), IntegrityError),
    "depth": (OK + b"\r\n" + b"[" * 200_000, IntegrityError),
    "long number": (OK + b'\r\n{"gen": ' + b"9" * 10_000 + b"}", IntegrityError),
    "to a file": (_to(b"file:///etc/passwd"), IntegrityError),
    "to another port": (_to(b"http://127.0.0.1:1/x"), IntegrityError),
    "to itself": (_to(b""), IntegrityError),
    "to no host": (_to(b"https://[::1"), IntegrityError),
    "to a script": (_to(b"javascript:1"), IntegrityError),
    "to bytes": (_to(b"\xff\xfe\x00"), IntegrityError),
    "part": (b"HTTP/1.1 206 x\r\nContent-Length: 2\r\n\r\n{}", RefusedError),
    "no content": (b"HTTP/1.1 204 x\r\n\r\n", RefusedError),
    "another protocol": (b"HTTP/1.1 101 Switching\r\n\r\n", RefusedError),
}


@pytest.mark.parametrize("kind", LIES)
def test_what_is_no_answer_gives_an_error_of_ours(kind: str) -> None:
    data, expected = LIES[kind]
    patience_s = 0.15 if expected is TemporaryError else 10.0

    def serve(handler: Handler) -> None:
        handler.wfile.write(data)

    with served(serve) as address:
        with pytest.raises(expected) as caught:
            opened(address, timeout_s=patience_s)
        assert type(caught.value) is expected


def test_redirects_to_ever_new_places_end_after_three(still: Farm) -> None:
    with Site(still.root / "store") as site:
        site.plan = lambda path: Reply(status=307, headers={"Location": f"/index/{path}x", **EMPTY})
        with pytest.raises(IntegrityError, match="redirected more than 3 times"):
            opened(site)
    assert len(site.asked) == 4


@lru_cache
def _bomb(layers: int) -> bytes:
    """Return 128 MiB of zeros, packed once or twice."""
    packer = zlib.compressobj(1, wbits=31)
    data = b"".join([packer.compress(bytes(MIB)) for _ in range(128)] + [packer.flush()])
    return gzip.compress(data) if layers > 1 else data


def _packed(layers: int) -> Reply:
    coding, length = ", ".join(["gzip"] * layers), str(len(_bomb(layers)))
    headers = {"Content-Encoding": coding, "Content-Length": length}
    return Reply(headers=headers, chunks=[_bomb(layers)])


def _streamed(headers: Mapping[str, str], piece: bytes) -> Reply:
    return Reply(headers=headers, chunks=(piece for _ in range(10**10 // len(piece))))


PIECE = bytes(64 * 1024)
LARGE: dict[str, Callable[[], Reply]] = {
    "10 GB": lambda: _streamed({"Content-Length": str(10**10)}, PIECE),
    "10 GB in chunks": lambda: _streamed(
        {"Transfer-Encoding": "chunked"}, b"10000\r\n" + PIECE + b"\r\n"
    ),
    "bomb": lambda: _packed(1),
    "bomb in a bomb": lambda: _packed(2),
}


@pytest.mark.parametrize(
    ("kind", "where"),
    [("10 GB", where) for where in KINDS] + [(kind, "head") for kind in LARGE if kind != "10 GB"],
)
def test_no_document_is_read_beyond_its_bound(still: Farm, kind: str, where: str) -> None:
    LARGE[kind]()
    with Site(still.root / "store") as site:
        site.plan = lambda path: LARGE[kind]() if kind_of(path) == where else None
        tracemalloc.start()
        try:
            with (
                pytest.raises(IntegrityError, match=r"no document has that|only gzip"),
                opened(site) as index,
            ):
                index.entries()
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
        finally:
            tracemalloc.stop()
    assert site.sent < 32 * MIB


PASSING = {
    "busy": Reply(status=429, headers={"Retry-After": "0", **EMPTY}),
    "reset": Reply(reset=True),
    "half": Reply(headers={"Content-Length": "9000", "Connection": "close"}, chunks=[b"{"]),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_fails_once_everywhere_is_read_all_the_same(
    still: Farm, cache: Path, kind: str
) -> None:
    failed = set[str]()

    def plan(path: str) -> Reply | None:
        if path in failed:
            return None
        failed.add(path)
        return PASSING[kind]

    with Site(still.root / "store", plan) as site, opened(site, cache, timeout_s=2.0) as index:
        assert [entry.stack.version for entry in index.entries()] == ["14.1.1", "14.2.0"]
        assert not index.is_offline
    assert failed == {path for path, _ in site.asked}


@pytest.mark.parametrize("where", ["gen", "group", "shard"])
@pytest.mark.parametrize("reply", [Reply(status=404, headers=EMPTY), Reply(status=304)])
def test_what_is_gone_once_below_the_head_is_asked_for_again(
    still: Farm, reply: Reply, where: str
) -> None:
    gone = [where]

    def plan(path: str) -> Reply | None:
        if kind_of(path) not in gone:
            return None
        gone.clear()
        return reply

    with Site(still.root / "store", plan) as site, opened(site) as index:
        assert len(index.entries()) == 2


@pytest.mark.parametrize("where", ["gen", "group", "shard"])
def test_what_stays_gone_below_the_head_is_asked_for_three_times(still: Farm, where: str) -> None:
    gone = Reply(status=404, headers=EMPTY)
    with (
        Site(still.root / "store", lambda path: gone if kind_of(path) == where else None) as site,
        pytest.raises(IntegrityError, match="is missing"),
        opened(site) as index,
    ):
        index.entries()
    assert [kind_of(path) for path, _ in site.asked].count(where) == 3


# What does not come, and what is not asked for


@pytest.mark.parametrize("status", [507, 520, 530])
def test_every_5xx_leads_to_the_copy(still: Farm, cache: Path, status: int) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        site.plan = lambda _: Reply(status=status, headers=EMPTY)
        assert opened(site, cache, timeout_s=0.2).is_offline


def test_a_handshake_that_breaks_off_leads_to_the_copy(still: Farm, cache: Path) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while not ended.is_set():
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            address = f"https://127.0.0.1:{server.getsockname()[1]}/"
            assert opened(address, cache, timeout_s=0.2).is_offline
        finally:
            ended.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


def test_a_config_that_is_gone_once_is_asked_for_again(still: Farm, cache: Path) -> None:
    gone = [True]

    def plan(path: str) -> Reply | None:
        if path != CONFIG_PATH or not gone:
            return None
        gone.clear()
        return Reply(status=404, headers=EMPTY)

    with Site(still.root / "store", plan) as site:
        with contextlib.suppress(CuratorError):
            opened(site, cache).close()
        assert opened(site, cache).registry == "registry.example/dl"


@pytest.mark.parametrize(
    ("location", "keys"),
    [
        ("https://[bad/", []),
        ("https://h:99999/", []),
        ("https:", []),
        ("a\0b", []),
        (".", [Path("/nothing.pub")]),
    ],
)
def test_what_is_given_wrong_is_an_input_error(location: str, keys: list[Path]) -> None:
    with pytest.raises(InputError):
        curator.open_index(location, keys=keys, cache=None, timeout_s=0.2)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(CuratorError) as caught:
        opened("http://me:secret@127.0.0.1:1/", timeout_s=0.1)
    assert "secret" not in str(caught.value)


def test_polls_share_one_connection(still: Farm, cache: Path) -> None:
    connections = []

    def serve(handler: Handler) -> None:
        connections.append(handler.client_address)
        data = (still.root / "store" / handler.path.removeprefix("/index/")).read_bytes()
        is_known = handler.headers.get("If-None-Match") == '"1"'
        length = [] if is_known else [("Content-Length", str(len(data)))]
        handler.close_connection = False
        handler.reply(
            304 if is_known else 200, [("ETag", '"1"'), *length], [] if is_known else [data]
        )

    with served(serve) as address, opened(address, cache) as index:
        for _ in range(3):
            assert index.refresh() is False
    assert len(set(connections)) == 1
