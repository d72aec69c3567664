"""The reader against servers, processes and disks that do their worst: typed errors, soon."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curator
from curator.cli._ports import now
from curator.errors import (
    CuratorError,
    InputError,
    IntegrityError,
    RefusedError,
    RollbackError,
    SignatureError,
    StrangerError,
    TemporaryError,
)
from curator.index import CONFIG_PATH, HEAD_PATH
from curator.oci import canonical_json, sha256
from curator.sign import encoded
from tests.documents import filled, rewritten
from tests.publishing import Farm
from tests.serving import Reply, Site
from tests.signing import new_signer
from tests.unit.test_index import JSON, PLACES, replaced
from tests.wire import Handler, Server, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from curator.reader._reader import IndexReader
    from curator.sign import Signer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = {"Content-Length": "0"}
MIB = 1024 * 1024
PATIENCE_S, LASTS_S = 0.5, 3.0
KINDS = ("head", "config", "gen", "group", "shard")


def opened(place: Site | str, cache: Path | None = None, **options: Any) -> IndexReader:
    address = place if isinstance(place, str) else place.address
    return curator.open_index(address, cache=cache, **{"timeout_s": 10.0, **options})


@contextlib.contextmanager
def served(serve: Callable[[Handler], None]) -> Iterator[str]:
    """Answer every request with whatever bytes a function writes."""

    def once(handler: Handler) -> None:
        handler.close_connection = True
        serve(handler)

    server = Server(("127.0.0.1", 0), partial(Handler, once))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/index/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kind_of(path: str) -> str:
    return path.split("/")[1].removesuffix(".json")


def new_farm(root: Path, signer: Signer | None = None) -> Farm:
    """Return an index of two images in two groups."""
    farm = Farm(root, signer=signer)
    farm.publish(farm.change(), farm.change("14.1.1"), now=now())
    return farm


def changed(farm: Farm, path: str, **fields: object) -> None:
    file = farm.root / "store" / path
    file.write_bytes(canonical_json(json.loads(file.read_bytes()) | fields))


@pytest.fixture(scope="module", autouse=True)
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one certificate and not the system's many, which take longest of all to load."""
    _, certificate = identity("127.0.0.1", tmp_path_factory.mktemp("tls"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A signed index that nobody changes."""
    return new_farm(tmp_path_factory.mktemp("still"), new_signer())


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """A signed index of the test's own."""
    return new_farm(tmp_path / "farm", new_signer())


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


# Documents that are signed and hashed right, and wrong

SIGNER = new_signer()
CONFIG = {
    "spec": 1,
    "store": "store-1",
    "registry": "registry.example/dl",
    "keys": [key.to_json() for key in SIGNER.public],
}


@pytest.fixture(scope="module")
def shelf() -> Iterator[tuple[dict[str, bytes], str]]:
    """A server of documents in memory, and its address."""
    files: dict[str, bytes] = {}

    def serve(handler: Handler) -> None:
        data = files.get(handler.path.removeprefix("/index/"))
        status = 404 if data is None else 200
        handler.close_connection = False
        handler.reply(status, [("Content-Length", str(len(data or b"")))], [data or b""])

    with served(serve) as address:
        yield files, address


def resigned(files: dict[str, bytes]) -> None:
    """Sign the head as it is, so that only what it says can be wrong."""
    head = json.loads(files[HEAD_PATH])
    if isinstance(head, dict):
        statement = canonical_json({name: head[name] for name in head if name != "signatures"})
        head["signatures"] = [found.to_json() for found in SIGNER.sign(encoded(statement))]
        files[HEAD_PATH] = canonical_json(head)


def read_all(address: str) -> int:
    """Read an index as a tool would, and return how many entries it holds."""
    keys = [key.public for key in SIGNER.public]
    with opened(address, keys=keys) as index:
        for entry in index.entries():
            assert index.find(entry.digest) == index.find(entry.id) == entry
            assert index.reference(entry).endswith(f"/{entry.repository}@{entry.digest}")
        return len(index.entries())


def test_a_whole_signed_index_is_read(shelf: tuple[dict[str, bytes], str]) -> None:
    files, address = shelf
    files.clear()
    files |= {**filled().files, CONFIG_PATH: canonical_json(CONFIG)}
    resigned(files)
    assert read_all(address) == 3


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(["config", "head", "generation", "group", "shard"]),
    path=PLACES,
    value=JSON,
)
def test_wrong_documents_of_a_good_signer_give_typed_errors_only(
    shelf: tuple[dict[str, bytes], str], kind: str, path: int, value: object
) -> None:
    files, address = shelf
    memory = filled()
    config: object = CONFIG
    if kind == "config":
        config = replaced(CONFIG, path + 1, value)
    else:
        rewritten(memory, kind, lambda tree: replaced(tree, path + 1, value))
    files.clear()
    files |= {**memory.files, CONFIG_PATH: canonical_json(config)}
    resigned(files)
    try:
        assert read_all(address) <= 3
    except CuratorError as error:
        assert isinstance(error, IntegrityError)  # noqa: PT017 - either outcome is right


# One cache, several processes

READER = """
import json, sys
from pathlib import Path
import curator
from curator.errors import RollbackError
address, cache, stop = sys.argv[1:]
seen = []
while True:
    is_last = Path(stop).exists()
    try:
        with curator.open_index(address, cache=cache) as index:
            index.refresh()
            assert len(index.entries()) == index.generation + 1 and not index.is_offline
            seen.append(index.generation)
    except RollbackError:  # the other one was faster: the test below tells of it
        is_last = False
    print(seen[-1:], flush=True)
    if is_last:
        break
print(json.dumps(seen))
"""


def test_processes_share_a_cache_and_one_of_them_is_killed(
    farm: Farm, cache: Path, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    with Site(farm.root / "store") as site, contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", READER, site.address, str(cache), str(stop)]
        readers = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        for reader in readers:
            assert reader.stdout
            assert reader.stdout.readline()
        pinned = []
        for patch in range(1, 4):
            farm.publish(farm.change(f"14.2.{patch}"), now=now())
            pinned.append(json.loads((cache / "pins.json").read_bytes())["gen"])
            if patch == 2:
                readers[0].send_signal(signal.SIGKILL)
        stop.touch()
        told = [reader.communicate(timeout=60)[0].splitlines()[-1] for reader in readers]
        assert [reader.returncode for reader in readers] == [-signal.SIGKILL, 0, 0]
        for seen in map(json.loads, told[1:]):
            assert seen == sorted(seen)
            assert seen[-1] == 4
        assert pinned == sorted(pinned)
        assert json.loads((cache / "pins.json").read_bytes())["gen"] == 4
        with opened(site, cache) as index:
            assert len(index.entries()) == 5


# What stands in a cache, damaged


def _flipped(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "flipped": _flipped,
    "another type": lambda _: b"[1]",
    "bytes": lambda _: b"\xff\x00" * 50,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_fetched_again(still: Farm, cache: Path, damage: str) -> None:
    with Site(still.root / "store") as site:
        with opened(site, cache) as index:
            index.entries()
        kept = [
            path for path in cache.glob("*.json") if path.name not in {"pins.json", "config.json"}
        ]
        for path in kept:
            good = path.read_bytes()
            path.write_bytes(DAMAGES[damage](good))
            with opened(site, cache) as index:
                assert len(index.entries()) == 2
            if path.name.startswith("doc-"):
                assert path.read_bytes() == good


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "flipped"])
def test_damaged_pins_are_told_of(still: Farm, cache: Path, damage: str) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        pins = cache / "pins.json"
        pins.write_bytes(DAMAGES[damage](pins.read_bytes()))
        with pytest.raises(IntegrityError, match=r"pins\.json is damaged: delete it"):
            opened(site, cache)


def test_a_flipped_bit_in_the_pins_never_gives_an_untyped_error(still: Farm, cache: Path) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        good = (cache / "pins.json").read_bytes()
        for at in range(0, len(good), 31):
            flipped = bytes([good[at] ^ 1])
            (cache / "pins.json").write_bytes(good[:at] + flipped + good[at + 1 :])
            with contextlib.suppress(IntegrityError):
                opened(site, cache).close()


# What a refused refresh leaves


def test_a_refused_refresh_leaves_the_reader_where_it_was(farm: Farm, cache: Path) -> None:
    head = farm.root / "store" / HEAD_PATH
    old = head.read_bytes()
    farm.publish(farm.change("14.3.0"), now=now())
    new = head.read_bytes()
    with Site(farm.root / "store") as site, opened(site, cache) as index:
        before = index.generation, index.entries(), index.registry

        def refused(kind: type[CuratorError]) -> None:
            with pytest.raises(kind):
                index.refresh()
            assert (index.generation, index.entries(), index.registry) == before

        for status in (403, 404):
            site.plan = partial(lambda status, _: Reply(status=status, headers=EMPTY), status)
            refused(RefusedError)
        site.plan = None
        head.write_bytes(old)
        refused(RollbackError)
        changed(farm, HEAD_PATH, signatures=[])
        refused(SignatureError)
        head.write_bytes(new)
        assert index.refresh() is False


# What others do meanwhile, what fails half way, and what is given wrong


def test_a_refused_refresh_leaves_the_registry_as_it_was(farm: Farm, cache: Path) -> None:
    with Site(farm.root / "store") as site, opened(site, cache) as index:
        before = index.reference(index.entries()[0])
        changed(farm, HEAD_PATH, signatures=[])
        changed(farm, CONFIG_PATH, registry="registry.other/x")
        with pytest.raises(SignatureError):
            index.refresh()
        assert index.reference(index.entries()[0]) == before


def test_what_was_signed_for_given_keys_never_counts_unsigned(farm: Farm, cache: Path) -> None:
    assert farm.signer
    with Site(farm.root / "store") as site:
        opened(site, cache, keys=[farm.signer.public[0].public]).close()
        changed(farm, HEAD_PATH, signatures=[])
        changed(farm, CONFIG_PATH, keys=[])
        with pytest.raises((SignatureError, StrangerError)):
            opened(site, cache)


def test_a_pinned_threshold_is_not_lowered(tmp_path: Path, cache: Path) -> None:
    farm = new_farm(tmp_path, new_signer("ecdsa", "ecdsa"))
    assert farm.signer
    changed(farm, CONFIG_PATH, threshold=2)
    head = json.loads((farm.root / "store" / HEAD_PATH).read_bytes())
    with Site(farm.root / "store") as site:
        opened(site, cache).close()
        opened(site, cache, keys=[farm.signer.public[0].public], threshold=1).close()
        changed(farm, CONFIG_PATH, threshold=1)
        changed(farm, HEAD_PATH, signatures=head["signatures"][:1])
        with pytest.raises((SignatureError, StrangerError)):
            opened(site, cache)


def test_another_store_that_was_pinned_meanwhile_is_kept(tmp_path: Path, cache: Path) -> None:
    farms = [new_farm(tmp_path / name, SIGNER) for name in ("a", "b")]
    farms[0].publish(farms[0].change("14.3.0"), now=now())
    first = [True]
    with Site(farms[0].root / "store") as site, Site(farms[1].root / "store") as other:

        def plan(path: str) -> None:
            if kind_of(path) == "gen" and first:
                first.clear()
                opened(other, cache).close()

        site.plan = plan
        with pytest.raises(IntegrityError):
            opened(site, cache)


def test_a_reader_that_is_overtaken_reads_the_newer_state(farm: Farm, cache: Path) -> None:
    first = [True]
    with Site(farm.root / "store") as site:

        def plan(path: str) -> None:
            if kind_of(path) == "gen" and first:
                first.clear()
                farm.publish(farm.change("14.3.0"), now=now())
                opened(site, cache).close()

        site.plan = plan
        assert opened(site, cache).generation == 2


def test_an_older_copy_is_read_without_a_network(farm: Farm, cache: Path) -> None:
    with Site(farm.root / "store") as site:
        opened(site, cache).close()
        kept = {path: path.read_bytes() for path in cache.glob("*.json") if path.stem != "pins"}
        farm.publish(farm.change("14.3.0"), now=now())
        opened(site, cache).close()
        for path, data in kept.items():
            path.write_bytes(data)
        site.plan = lambda _: Reply(reset=True)
        assert opened(site, cache, timeout_s=0.2).is_offline


@pytest.mark.parametrize(
    "where",
    [
        "config",
        "gen",
    ],
)
def test_what_does_not_come_of_a_newer_state_leads_to_the_copy(
    farm: Farm, cache: Path, where: str
) -> None:
    with Site(farm.root / "store") as site:
        with opened(site, cache) as index:
            index.entries()
        farm.publish(farm.change("14.3.0"), now=now())
        down = Reply(status=503, headers=EMPTY)
        site.plan = lambda path: down if kind_of(path) == where else None
        with opened(site, cache, timeout_s=0.2) as index:
            assert (index.is_offline, index.generation) == (True, 1)


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


@pytest.mark.parametrize("damage", [*DAMAGES, "gone"])
def test_a_damaged_config_in_the_cache_is_fetched_again(
    still: Farm, cache: Path, damage: str
) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        path = cache / "config.json"
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(DAMAGES[damage](path.read_bytes()))
        assert opened(site, cache).registry == "registry.example/dl"


SEEN = {
    "depth": "[" * 100_000,
    "long number": '{"head": "%s", "config": "%s", "etag": null, "at": 1' + "0" * 400 + "}",
    "ETag of lines": '{"head": "%s", "config": "%s", "etag": "a\\nb", "at": 1.5}',
    "ETag of signs": '{"head": "%s", "config": "%s", "etag": "\\u0100", "at": 1.5}',
}


@pytest.mark.parametrize("kind", SEEN)
def test_a_damaged_note_of_the_head_is_as_good_as_none(still: Farm, cache: Path, kind: str) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        text = SEEN[kind]
        for name in ("head", "config"):
            text = text.replace("%s", sha256((cache / f"{name}.json").read_bytes()), 1)
        (cache / "seen.json").write_text(text)
        assert opened(site, cache).generation == 1


@pytest.mark.parametrize("end", ["2026-99-99T99:99:99Z", "\u0662026-11-23T00:00:00Z"])
def test_an_end_that_is_no_date_is_refused(tmp_path: Path, end: str) -> None:
    farm = new_farm(tmp_path)
    changed(farm, HEAD_PATH, expires=end)
    with pytest.raises(IntegrityError):
        curator.open_index(farm.root / "store", cache=None)


def unknown_curve() -> str:
    """Return a public key in PEM on a curve that is not supported: secp112r1's is retired."""
    kind = bytes.fromhex("06072a8648ce3d0201") + bytes.fromhex("06052b81040008")
    body = b"\x30" + bytes([len(kind)]) + kind + b"\x03\x2a\x00\x04" + b"\x01" * 40
    text = base64.b64encode(b"\x30" + bytes([len(body)]) + body).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("way", ["given", "named"])
def test_a_key_on_an_unknown_curve_is_refused(farm: Farm, way: str) -> None:
    if way == "named":
        [signature] = json.loads((farm.root / "store" / HEAD_PATH).read_bytes())["signatures"]
        own = {"keyid": signature["keyid"], "scheme": "ecdsa-sha2-nistp256"}
        changed(farm, CONFIG_PATH, keys=[{**own, "public": unknown_curve()}])
    with pytest.raises((InputError, SignatureError)):
        curator.open_index(
            farm.root / "store", keys=[unknown_curve()] if way == "given" else [], cache=None
        )


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


def test_a_relative_path_is_a_location_of_its_directory(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATOR_CACHE", str(cache))
    for name in ("a", "b"):
        new_farm(tmp_path / name, new_signer())
        monkeypatch.chdir(tmp_path / name)
        assert curator.open_index("store").generation == 1


def age(cache: Path) -> list[Path]:
    """Make remembered documents old, and return them."""
    found = sorted(cache.glob("doc-*"))
    for path in found:
        os.utime(path, (1, 1))
    return found


def test_a_cache_of_readers_that_do_not_live_long_is_bounded(farm: Farm, cache: Path) -> None:
    counts = []
    for patch in range(1, 4):
        farm.publish(farm.change(f"14.2.{patch}"), now=now())
        with curator.open_index(farm.root / "store", cache=cache) as index:
            index.entries()
        counts.append(len(age(cache)))
    assert counts[-1] == counts[-2]


def test_what_the_newest_state_names_is_not_forgotten(farm: Farm, cache: Path) -> None:
    place = farm.root / "store"
    with curator.open_index(place, cache=cache) as index:
        index.entries()
    before = age(cache)
    with curator.open_index(place, cache=cache) as index:
        farm.publish(farm.change("14.3.0"), now=now())
        index.refresh()
    assert [path.name for path in before if not path.exists()] == []


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


def test_a_release_candidate_is_found_by_its_version(farm: Farm) -> None:
    farm.publish(farm.change("14.5rc1"), now=now())
    with curator.open_index(farm.root / "store", cache=None) as index:
        assert [entry.stack.version for entry in index.entries(version="14.5rc1")] == ["14.5rc1"]
