"""What a reader keeps: shared by processes, damaged, overtaken, and bounded."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import curator
from curator.cli._ports import now
from curator.errors import (
    CuratorError,
    IntegrityError,
    RefusedError,
    RollbackError,
    SignatureError,
    TemporaryError,
)
from curator.index import CONFIG_PATH, HEAD_PATH
from tests.readers import EMPTY, changed, kind_of, new_farm, opened, trusting
from tests.serving import Reply, Site
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.publishing import Farm


@pytest.fixture(scope="module", autouse=True)
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with trusting(tmp_path_factory.mktemp("tls")):
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


# One cache, several processes

READER = """
import json, sys
from pathlib import Path
import curator
address, cache, stop = sys.argv[1:]
seen = []
while True:
    is_last = Path(stop).exists()
    with curator.open_index(address, cache=cache) as index:
        index.refresh()
        assert len(index.entries()) == index.generation + 1 and not index.is_offline
        seen.append(index.generation)
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
        for path in [path for path in cache.glob("*.json") if path.name != "pins.json"]:
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


def outcome(site: Site, cache: Path) -> type[CuratorError] | None:
    """Return what opening an index raises, None if nothing."""
    try:
        opened(site, cache).close()
    except CuratorError as error:
        return type(error)
    return None


def test_a_flipped_bit_in_the_pins_never_gives_an_untyped_error(still: Farm, cache: Path) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        good = (cache / "pins.json").read_bytes()
        outcomes = set[type[CuratorError] | None]()
        for at in range(0, len(good), 31):
            flipped = bytes([good[at] ^ 1])
            (cache / "pins.json").write_bytes(good[:at] + flipped + good[at + 1 :])
            outcomes.add(outcome(site, cache))
        assert IntegrityError in outcomes
        assert all(kind is None or issubclass(kind, IntegrityError) for kind in outcomes)


def edited(copy: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(copy.read_bytes())
    change(value)
    return json.dumps(value).encode()


COPIES: dict[str, Callable[[Path], bytes]] = {
    "depth": lambda _: b"[" * 100_000,
    "another registry": lambda copy: copy.read_bytes().replace(b"registry.example", b"registry.x"),
    "no head": lambda copy: edited(copy, lambda value: value.pop("head")),
    "a head of numbers": lambda copy: edited(copy, lambda value: value.update(head=[1])),
    "half a letter": lambda copy: edited(copy, lambda value: value.update(head="\ud800")),
    "another ETag": lambda copy: edited(copy, lambda value: value.update(etag="a\nb")),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_damaged_copy_is_as_good_as_none(still: Farm, cache: Path, kind: str) -> None:
    with Site(still.root / "store") as site:
        opened(site, cache).close()
        copy = cache / "copy.json"
        good = copy.read_bytes()
        copy.write_bytes(COPIES[kind](copy))
        with pytest.raises(TemporaryError, match="no copy"):
            opened(site, cache, offline=True)
        assert opened(site, cache).registry == "registry.example/dl"
        assert copy.read_bytes() == good


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


def test_a_refused_refresh_leaves_the_registry_as_it_was(farm: Farm, cache: Path) -> None:
    with Site(farm.root / "store") as site, opened(site, cache) as index:
        before = index.reference(index.entries()[0])
        changed(farm, HEAD_PATH, signatures=[])
        changed(farm, CONFIG_PATH, registry="registry.other/x")
        with pytest.raises(SignatureError):
            index.refresh()
        assert index.reference(index.entries()[0]) == before


# What others do meanwhile


def test_another_store_that_was_pinned_meanwhile_is_kept(tmp_path: Path, cache: Path) -> None:
    signer = new_signer()
    farms = [new_farm(tmp_path / name, signer) for name in ("a", "b")]
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


@pytest.mark.parametrize("where", ["config", "gen"])
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


# How much is kept, and where


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
