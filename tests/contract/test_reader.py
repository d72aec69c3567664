"""The reader over real HTTP: what it fetches, what it remembers, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import curator
from curator.cli._ports import now
from curator.errors import (
    CuratorError,
    ForkError,
    FreezeError,
    InputError,
    IntegrityError,
    MixedError,
    RefusedError,
    RollbackError,
    SignatureError,
    StrangerError,
    TemporaryError,
)
from curator.index import generation_path
from tests import readers
from tests.publishing import CANDIDATE, Farm
from tests.readers import EMPTY, changed
from tests.serving import Reply, Site
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.reader._reader import IndexReader

HEAD = "v1/head.json"
CONFIG = "v1/config.json"

opened = partial(readers.opened, timeout_s=2.0)


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    """A signed index of four images in two groups."""
    farm = Farm(tmp_path / "farm", signer=new_signer())
    farm.publish(
        farm.change(), farm.change(cuda="13.0"), farm.change("14.1.1", verdict=CANDIDATE), now=now()
    )
    farm.publish(farm.change("14.2.1"), now=now())
    return farm


@pytest.fixture
def site(farm: Farm) -> Iterator[Site]:
    with Site(farm.root / "store") as site:
        yield site


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def file(farm: Farm, path: str) -> Path:
    return farm.root / "store" / path


def test_entries_are_found_by_every_name(site: Site, cache: Path) -> None:
    with opened(site, cache) as index:
        assert (index.generation, len(index.entries()), index.is_offline) == (2, 4, False)
        newest = index.find("cupy:14.2")
        assert newest is not None
        assert newest.stack.version == "14.2.1"
        for name in (newest.id, newest.cell, newest.digest, f"cupy:{newest.tags[0]}"):
            assert index.find(name) == newest
        assert index.reference(newest) == f"registry.example/dl/cupy@{newest.digest}"
        for name in ("cupy:99", "numpy:1", "cupy-9", "sha256:" + "0" * 64, ""):
            assert index.find(name) is None


def test_entries_are_chosen_by_what_they_hold(site: Site, cache: Path) -> None:
    with opened(site, cache) as index:

        def versions(**wishes: Any) -> list[str]:
            return [f"{e.stack.version}/{e.stack.cuda}" for e in index.entries(**wishes)]

        assert versions(version="14.1") == ["14.1.1/12.9"]
        assert versions(version="14.2.0") == ["14.2.0/12.9", "14.2.0/13.0"]
        assert versions(cuda="13") == ["14.2.0/13.0"]
        assert versions(cuda="1") == []
        assert versions(channel="candidate") == ["14.1.1/12.9"]
        assert len(versions(framework="cupy")) == 4
        assert versions(framework="jax") == []


def test_a_cold_read_fetches_what_it_needs_and_an_unchanged_one_a_304(
    site: Site, cache: Path
) -> None:
    with opened(site, cache) as index:
        index.entries(framework="cupy", version="14.1", cuda="12.9")
    kinds = [(path.split("/")[1], status) for path, status in site.asked]
    assert kinds == [
        ("head.json", 200), ("config.json", 200), ("gen", 200), ("group", 200), ("shard", 200),
    ]  # fmt: skip
    site.forget()
    with opened(site, cache) as index:
        index.entries(framework="cupy", version="14.1", cuda="12.9")
        assert index.refresh() is False
    assert site.asked == [(HEAD, 304), (HEAD, 304)]
    assert site.sent == 0


def test_a_newer_state_is_seen_at_a_refresh(site: Site, cache: Path, farm: Farm) -> None:
    with opened(site, cache) as index:
        farm.publish(farm.change("14.3.0"), now=now())
        assert index.generation == 2
        assert index.refresh() is True
        assert (index.generation, len(index.entries())) == (3, 5)
        assert index.refresh() is False


def test_a_directory_is_read_without_any_server(farm: Farm) -> None:
    root = farm.root / "store"
    for place in (root, str(root), f"file://{root}"):
        with curator.open_index(place, cache=None) as index:
            assert len(index.entries()) == 4
            assert index.find("cupy:14.2") is not None
            assert index.refresh() is False


def test_opening_a_directory_loads_no_engine_cloud_or_web(farm: Farm, tmp_path: Path) -> None:
    program = (
        "import sys, curator\n"
        "assert 'pydantic' not in sys.modules\n"
        f"index = curator.open_index({str(farm.root / 'store')!r}, cache={str(tmp_path / 'c')!r})\n"
        "assert len(index.entries()) == 4\n"
        "print([n for n in ('docker', 'python_on_whales', 'azure', 'urllib3', 'yaml', 'jinja2',"
        " 'click', 'rich', 'requests') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("location", ["http://images.example/", "ftp://x/y", "azure:index"])
def test_what_is_no_place_of_an_index(location: str, tmp_path: Path) -> None:
    with pytest.raises((InputError, RefusedError)):
        curator.open_index(location, cache=tmp_path)


def test_nothing_there_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no index here"):
        curator.open_index(tmp_path / "nothing", cache=None)
    with Site(tmp_path) as site, pytest.raises(RefusedError, match="no index here"):
        opened(site, None)


def test_given_keys_have_to_sign(site: Site, cache: Path, farm: Farm, tmp_path: Path) -> None:
    assert farm.signer
    own, other = farm.signer.public[0].public, new_signer().public[0].public
    path = tmp_path / "own.pub"
    path.write_text(own)
    for key in (own, own.encode(), path):
        assert opened(site, None, keys=[key]).generation == 2
    with pytest.raises(SignatureError, match="0 of the 1"):
        opened(site, cache, keys=[other])
    with pytest.raises(SignatureError, match="1 of the 2"):
        opened(site, cache, keys=[own, other], threshold=2)
    assert opened(site, cache, keys=[own, other]).generation == 2


def test_a_changed_head_is_refused(site: Site, cache: Path, farm: Farm) -> None:
    changed(farm, HEAD, expires="2099-01-01T00:00:00Z")
    with pytest.raises(SignatureError):
        opened(site, cache)


def test_a_head_without_signatures_is_refused(site: Site, cache: Path, farm: Farm) -> None:
    changed(farm, HEAD, signatures=[])
    with pytest.raises(SignatureError):
        opened(site, cache)


def test_an_index_that_was_signed_once_never_counts_unsigned(
    site: Site, cache: Path, farm: Farm
) -> None:
    opened(site, cache).close()
    changed(farm, HEAD, signatures=[])
    changed(farm, CONFIG, keys=[])
    with pytest.raises(StrangerError, match=r"delete .*pins.json"):
        opened(site, cache)
    file(farm, CONFIG).unlink()
    with pytest.raises(IntegrityError, match=r"config\.json is missing"):
        opened(site, cache)


def test_other_keys_than_the_first_ones_are_refused(site: Site, cache: Path, farm: Farm) -> None:
    opened(site, cache).close()
    stranger = new_signer()
    changed(farm, CONFIG, keys=[key.to_json() for key in stranger.public])
    Farm(farm.root, signer=stranger).publish(farm.change("14.3.0"), now=now())
    with pytest.raises(StrangerError):
        opened(site, cache)
    (cache / "pins.json").unlink()
    assert opened(site, cache).generation == 3


def moved(farm: Farm, site: Site, cache: Path) -> IndexReader:
    """Read an index, then one whose images are said to be elsewhere."""
    opened(site, cache).close()
    farm.publish(farm.change("14.3.0"), now=now())
    changed(farm, CONFIG, registry="registry.other/x")
    return opened(site, cache)


def test_a_signed_index_is_not_followed_to_another_registry(
    site: Site, cache: Path, farm: Farm
) -> None:
    with pytest.raises(StrangerError, match=r"are said to be in registry\.other/x.*pins\.json"):
        moved(farm, site, cache)
    (cache / "pins.json").unlink()
    assert opened(site, cache).registry == "registry.other/x"


def test_an_unsigned_index_says_itself_where_its_images_are(tmp_path: Path, cache: Path) -> None:
    farm = readers.new_farm(tmp_path / "open")
    with Site(farm.root / "store") as site:
        assert moved(farm, site, cache).registry == "registry.other/x"


def test_a_replayed_index_is_refused(site: Site, cache: Path, farm: Farm) -> None:
    old = file(farm, HEAD).read_bytes()
    farm.publish(farm.change("14.3.0"), now=now())
    opened(site, cache).close()
    file(farm, HEAD).write_bytes(old)
    with pytest.raises(RollbackError, match="generation 2 is shown, 3 was seen"):
        opened(site, cache)


def test_an_expired_index_is_refused(site: Site, cache: Path, farm: Farm) -> None:
    changed(farm, HEAD, expires="2020-01-01T00:00:00Z")
    assert farm.signer
    farm.publish(farm.change("14.3.0"), now="2020-01-01T00:00:00Z")
    with pytest.raises(FreezeError, match="was signed until 2020-01-31"):
        opened(site, cache)


def other_history(farm: Farm, root: Path) -> Farm:
    """Return another store with the same identity and signer, of another content."""
    other = Farm(root, signer=farm.signer)
    other.publish(other.change("13.0.0"), now=now())
    path = root / "store"
    for name in ("head.json", "projected.json", generation_path(1).removeprefix("v1/")):
        (path / "v1" / name).unlink()
    changed(other, CONFIG, store=json.loads(file(farm, CONFIG).read_bytes())["store"])
    for version in ("13.0.1", "13.0.2"):
        other.publish(other.change(version), now=now())
    return other


def test_another_state_under_a_known_number_is_refused(
    site: Site, cache: Path, farm: Farm, tmp_path: Path
) -> None:
    opened(site, cache).close()
    site.root = other_history(farm, tmp_path / "other").root / "store"
    with pytest.raises(ForkError, match="generation 2"):
        opened(site, cache)


def test_another_store_is_refused(site: Site, cache: Path, tmp_path: Path, farm: Farm) -> None:
    opened(site, cache).close()
    other = Farm(tmp_path / "other", signer=farm.signer)
    for version in ("14.2.0", "14.3.0", "14.4.0"):
        other.publish(other.change(version), now=now())
    site.root = other.root / "store"
    with pytest.raises(StrangerError, match=r"delete .*pins.json"):
        opened(site, cache)


def test_documents_of_different_states_are_refused(site: Site, cache: Path, farm: Farm) -> None:
    one, two = (file(farm, generation_path(number)) for number in (1, 2))
    two.write_bytes(one.read_bytes())
    with pytest.raises(MixedError):
        opened(site, cache)
    assert [path for path, _ in site.asked].count(HEAD) == 3


@pytest.mark.parametrize("kind", ["group", "shard"])
@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_what_is_damaged_below_the_head_is_refused(
    site: Site, cache: Path, farm: Farm, kind: str, damage: str
) -> None:
    for path in (farm.root / "store/v1" / kind).glob("*.json"):
        if damage == "lost":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes() + b" ")
    with opened(site, cache) as index, pytest.raises(IntegrityError):
        index.entries()


def test_a_head_that_moves_while_it_is_read_is_read_again(
    site: Site, cache: Path, farm: Farm
) -> None:
    path = generation_path(2)
    hidden = [file(farm, path).read_bytes()]

    def appear(asked: str) -> Reply | None:
        if asked == path and hidden:
            hidden.clear()
            return Reply(status=404, headers=EMPTY)
        return None

    site.plan = appear
    assert opened(site, cache).generation == 2


def test_without_a_network_the_last_verified_copy_is_read(site: Site, cache: Path) -> None:
    with opened(site, cache) as index:
        index.entries()
    site.plan = lambda _: Reply(reset=True)
    with opened(site, cache) as index:
        assert (index.is_offline, index.generation, len(index.entries())) == (True, 2, 4)
        assert 0 < index.age_s < 60
        assert index.registry == "registry.example/dl"
        site.plan = None
        assert index.refresh() is False
        assert not index.is_offline
    site.plan = lambda _: Reply(status=503, headers=EMPTY)
    with pytest.raises(TemporaryError, match="status 503"):
        opened(site, None)


def test_no_request_comes_before_its_retry_after(site: Site, cache: Path) -> None:
    site.plan = lambda _: Reply(status=429, headers={"Retry-After": "60", **EMPTY})
    with pytest.raises(TemporaryError, match="status 429"):
        opened(site, cache)
    assert len(site.asked) == 1


def test_damaged_pins_are_no_first_use(site: Site, cache: Path) -> None:
    opened(site, cache).close()
    for data in (b"", b"[]", b'{"store": 1}', b"[" * 100_000):
        (cache / "pins.json").write_bytes(data)
        with pytest.raises(IntegrityError, match="is damaged"):
            opened(site, cache)


def test_damaged_copies_are_fetched_again(site: Site, cache: Path) -> None:
    with opened(site, cache) as index:
        index.entries()
    for path in cache.glob("*.json"):
        if path.name != "pins.json":
            path.write_bytes(path.read_bytes()[:-5])
    site.forget()
    with opened(site, cache) as index:
        assert len(index.entries()) == 4
    assert (HEAD, 200) in site.asked


def test_a_reader_that_is_behind_never_lowers_the_pins(site: Site, cache: Path, farm: Farm) -> None:
    old = file(farm, HEAD).read_bytes()
    with opened(site, cache) as behind:
        farm.publish(farm.change("14.3.0"), now=now())
        opened(site, cache).close()
        file(farm, HEAD).write_bytes(old)
        with pytest.raises(RollbackError):
            behind.refresh()
    assert json.loads((cache / "pins.json").read_bytes())["gen"] == 3


HOSTILE = {
    "endless": Reply(chunks=(b"x" * 65536 for _ in range(200_000))),
    "dripping": Reply(chunks=[b"{"] * 600, pause_s=0.1),
    "elsewhere": Reply(status=302, headers={"Location": "http://192.0.2.1/", **EMPTY}),
    "nowhere": Reply(status=302, headers={"Location": "https://a..b/", **EMPTY}),
    "looping": Reply(status=302, headers={"Location": "/index/v1/head.json", **EMPTY}),
    "forbidden": Reply(status=403, headers=EMPTY),
    "no gzip": Reply(headers={"Content-Encoding": "gzip", "Content-Length": "3"}, chunks=[b"abc"]),
    "no json": Reply(headers={"Content-Length": "3"}, chunks=[b"abc"]),
    "unchanged": Reply(status=304),
    "half": Reply(headers={"Content-Length": "300"}, chunks=[b"{"], reset=False),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_server_that_misbehaves_is_refused(site: Site, cache: Path, kind: str) -> None:
    site.plan = lambda _: HOSTILE[kind]
    with pytest.raises(CuratorError) as caught:
        opened(site, cache, timeout_s=1.0)
    assert type(caught.value) not in {CuratorError, InputError}
    assert site.sent < 16 * 1024 * 1024
