"""What a reader's copy is worth: one file, found again whatever the query, read without waiting."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import curator
from curator.cli._ports import now
from curator.errors import (
    CuratorError,
    HostError,
    InputError,
    RollbackError,
    StrangerError,
    TemporaryError,
)
from curator.index import HEAD_PATH
from curator.reader import read_catalogue
from curator.settings import reader_cache
from tests.readers import EMPTY, new_farm, opened, trusting
from tests.serving import Reply, Site
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.publishing import Farm

SOON_S = 2.5  # less than a head is waited for


@pytest.fixture(scope="module", autouse=True)
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with trusting(tmp_path_factory.mktemp("tls")):
        yield


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """A signed index of the test's own."""
    return new_farm(tmp_path / "farm", new_signer())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, as `open_index` finds it."""
    monkeypatch.setenv("CURATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Which index it is of


def test_a_new_query_is_no_first_use(farm: Farm, cache: Path, tmp_path: Path) -> None:
    head = farm.root / "store" / HEAD_PATH
    old = head.read_bytes()
    farm.publish(farm.change("14.3.0"), now=now())
    with Site(farm.root / "store") as site:
        curator.open_index(f"{site.address}?sv=1&sig=AAA").close()
        head.write_bytes(old)
        shouted = site.address.replace("http:", "HTTP:")
        for again in ("?sv=1&sig=BBB", "", "#x"):
            for address in (site.address, shouted):
                with pytest.raises(RollbackError):
                    curator.open_index(address + again)
        site.root = new_farm(tmp_path / "other", new_signer()).root / "store"
        with pytest.raises(StrangerError):
            curator.open_index(f"{site.address}?sig=CCC")
    assert len(list((cache / "index").iterdir())) == 1


def test_another_path_host_or_port_is_another_index(cache: Path) -> None:
    places = ["https://a.example/x", "https://a.example/y", "https://b.example/x", "/x", "/y"]
    places += ["https://a.example:8443/x", "https://a.example/X", "https://[bad/"]
    assert len(set(map(reader_cache, places))) == len(places)
    same = ["https://A.example/x/", "HTTPS://a.example:443/x", "https://a.example/x?sig=1"]
    assert {reader_cache(place) for place in same} == {reader_cache("https://a.example/x")}
    found = reader_cache("/x")
    assert found is not None
    assert found.is_relative_to(cache)


# One file, and only when something changed

READER = """
import sys, curator
while True:
    curator.open_index(sys.argv[1], cache=sys.argv[2]).close()
"""


def test_readers_that_refresh_and_die_leave_a_copy_at_every_moment(
    farm: Farm, tmp_path: Path
) -> None:
    cache = tmp_path / "shared"
    with Site(farm.root / "store") as site, contextlib.ExitStack() as stack:
        curator.open_index(site.address, cache=cache).close()
        command = [sys.executable, "-c", READER, site.address, str(cache)]
        for number in range(60):
            if number % 20 == 0:
                reader = stack.enter_context(subprocess.Popen(command))
                stack.callback(reader.kill)
            if number % 10 == 0:
                farm.publish(farm.change(f"14.3.{number}"), now=now())
            if number % 20 == 19:
                reader.kill()
            with curator.open_index(site.address, cache=cache, offline=True) as index:
                assert index.is_offline
            time.sleep(0.02)


def test_an_unchanged_index_writes_nothing(farm: Farm, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with Site(farm.root / "store") as site:
        opened(site, cache).close()
        os.utime(cache / "copy.json", (1, 1))
        files = {path: (path.stat().st_ino, path.read_bytes()) for path in cache.iterdir()}
        opened(site, cache).close()
        assert {p: (p.stat().st_ino, p.read_bytes()) for p in cache.iterdir()} == files
    with opened(site.address, cache, offline=True) as index:
        assert index.age_s < 60  # it was seen a moment ago


# Without a network


# Nobody listens at the first port, and the second is a name of nothing.
@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "https://index.invalid/"])
def test_a_server_that_is_not_there_is_not_waited_for(
    farm: Farm, tmp_path: Path, address: str
) -> None:
    cache = tmp_path / "cache"
    with Site(farm.root / "store") as site:
        read_catalogue(site.address, cache=cache)
    for _ in range(2):
        start = time.monotonic()
        with curator.open_index(address, cache=cache) as index:
            assert index.is_offline
        assert read_catalogue(address, cache=cache).count == 2
        assert time.monotonic() - start < SOON_S
    with pytest.raises(TemporaryError):
        curator.open_index(address, cache=None, timeout_s=0.3)


def test_a_server_that_does_not_answer_is_waited_for_a_little(farm: Farm, tmp_path: Path) -> None:
    cache, over = tmp_path / "cache", threading.Event()
    with Site(farm.root / "store") as site:
        opened(site, cache).close()

        def plan(_: str) -> Reply:
            over.wait(20)
            return Reply(status=503, headers=EMPTY)

        site.plan = plan
        start = time.monotonic()
        with curator.open_index(site.address, cache=cache) as index:
            assert index.is_offline
        assert time.monotonic() - start < 6
        over.set()


def test_who_stays_offline_is_not_warned_of_it(
    farm: Farm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    with Site(farm.root / "store") as site:
        read_catalogue(site.address, cache=cache)
    with caplog.at_level(logging.WARNING):
        curator.open_index(site.address, cache=cache, offline=True).close()
        read_catalogue(site.address, cache=cache, offline=True)
        assert caplog.text == ""
        curator.open_index(site.address, cache=cache).close()
        assert "reading the copy of before" in caplog.text


# Where nothing can be written


def test_a_cache_that_cannot_be_written_is_done_without(
    farm: Farm, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where a directory should be")
    with curator.open_index(farm.root / "store") as index, caplog.at_level(logging.WARNING):
        assert len(index.entries()) == 2
        farm.publish(farm.change("14.3.0"), now=now())
        assert index.refresh() is True
        assert len(index.entries()) == 3
    assert caplog.text.count("forgotten") <= 1
    with pytest.raises(HostError, match="name another cache"):
        curator.open_index(farm.root / "store", cache=cache)


# What it takes is loaded first: the other user may not read where Python is.
STRANGER = """
import os, pwd, sys, curator
curator.open_index(sys.argv[1], cache=None).entries()
os.setgid(54321)
os.setuid(54321)
try:
    with curator.open_index(sys.argv[1]) as index:
        print(index.generation, len(index.entries()))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def public() -> Iterator[Farm]:
    """An index that every user can read, with a cache beside it."""
    if os.getuid():
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        root = Path(directory)
        root.chmod(0o755)
        patch.setenv("CURATOR_CACHE", str(root / "cache"))
        yield new_farm(root / "farm", new_signer())


def as_nobody(farm: Farm, **environment: str) -> subprocess.CompletedProcess[str]:
    """Open the index as a user whom the machine does not know."""
    own = {"PATH": os.environ["PATH"], **environment}
    command = [sys.executable, "-c", STRANGER, str(farm.root / "store")]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False)


def test_a_user_without_a_home_reads_an_index(public: Farm) -> None:
    for environment in ({}, {"HOME": "/"}, {"HOME": "/nonexistent"}, {"HOME": "/root"}):
        done = as_nobody(public, **environment)
        assert (done.returncode, done.stdout) == (0, "1 2\n"), done.stderr


def test_what_another_user_pinned_holds(public: Farm) -> None:
    head, cache = public.root / "store" / HEAD_PATH, os.environ["CURATOR_CACHE"]
    old = head.read_bytes()
    public.publish(public.change("14.3.0"), now=now())
    curator.open_index(public.root / "store").close()
    assert as_nobody(public, CURATOR_CACHE=cache).stdout == "2 3\n"
    head.write_bytes(old)
    assert as_nobody(public, CURATOR_CACHE=cache).stdout.startswith("RollbackError")


# What is given wrong


@pytest.mark.parametrize(("keys", "threshold"), [(0, 2), (1, 2), (2, 3), (1, 0), (0, -1)])
def test_a_threshold_that_the_given_keys_cannot_reach(
    farm: Farm, tmp_path: Path, keys: int, threshold: int
) -> None:
    given = [new_signer().public[0].public for _ in range(keys)]
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(InputError, match="cannot sign"):
            curator.open_index(farm.root / "store", keys=given, threshold=threshold, cache=cache)
        with pytest.raises(InputError, match="cannot sign"):
            read_catalogue(str(farm.root / "store"), keys=given, threshold=threshold, cache=cache)


def test_one_key_twice_is_one_key(farm: Farm) -> None:
    assert farm.signer
    own = farm.signer.public[0].public
    assert curator.open_index(farm.root / "store", keys=[own, own], cache=None).generation == 1
    with pytest.raises(CuratorError, match="2 of 1"):
        curator.open_index(farm.root / "store", keys=[own, own], threshold=2, cache=None)
