"""Who may write to a store: its identity, its keys, and what a lost configuration takes."""

from __future__ import annotations

import json
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

import curator
from curator.cli._ports import now
from curator.errors import IntegrityError, MixedError, RefusedError
from curator.publish import AlreadyCommitted, Committed, audit, check_store, publish, recover
from curator.settings import Place
from curator.sign import signer
from tests.publishing import Farm, Fuse, FusedStore, Killed, check, in_memory, loaded
from tests.signing import new_signer, private_pem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from curator.ports import Blob
    from curator.publish import Audit

TODAY = now()  # a reader asks the clock
KEYS = [private_pem("ecdsa"), private_pem("ed25519")]
CONFIG = "v1/config.json"
HEAD = "v1/head.json"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


@pytest.fixture
def signing(farm: Farm) -> Farm:
    """The same farm with two keys, and something published with them."""
    signing = Farm(farm.root, signer=signer(KEYS))
    signing.publish(signing.change(), now=TODAY)
    return signing


def file(farm: Farm, path: str) -> Path:
    return farm.root / "store" / path


def generation_read(farm: Farm) -> int:
    """Return what a reader who has never been here finds."""
    with curator.open_index(farm.root / "store", cache=None) as index:
        return index.generation


def codes(found: Audit) -> list[str]:
    return [finding.code for finding in found.findings]


def lost(farm: Farm) -> None:
    file(farm, CONFIG).unlink()


def damaged(farm: Farm) -> None:
    file(farm, CONFIG).write_bytes(b"{")


def swapped(farm: Farm) -> None:
    config = loaded(farm.root / "store", CONFIG)
    del config["keys"]
    file(farm, CONFIG).write_text(json.dumps({**config, "store": "another"}))


LOSSES = [lost, damaged, swapped]


@pytest.mark.parametrize("damage", LOSSES)
def test_a_chain_without_its_configuration_takes_nothing_until_it_is_written_again(
    farm: Farm, damage: Callable[[Farm], None]
) -> None:
    change = farm.change()
    farm.publish(change)
    before = loaded(farm.root / "store", CONFIG)
    damage(farm)
    farm.fuse.writes.clear()
    with pytest.raises(MixedError, match="audit --repair"):
        farm.publish(farm.change("14.3.0"))
    again = farm.publish(change)
    assert isinstance(again, AlreadyCommitted)
    assert isinstance(again.unfinished, MixedError)
    assert farm.fuse.writes == []
    assert [finding.code for finding in check_store(farm.documents, TODAY).findings] == ["config"]
    mended = audit(farm.target(TODAY), repair=True)
    assert (codes(mended), mended.repaired, mended.left) == (["config"], (CONFIG,), ())
    assert loaded(farm.root / "store", CONFIG) == before
    assert isinstance(farm.publish(farm.change("14.3.0")), Committed)
    assert len(check(farm)) == 2


@pytest.mark.parametrize("damage", LOSSES)
def test_a_lost_configuration_of_a_signed_index_takes_all_of_its_keys(
    signing: Farm, damage: Callable[[Farm], None]
) -> None:
    before = loaded(signing.root / "store", CONFIG)
    damage(signing)
    for few in (None, new_signer(), signer(KEYS[:1])):
        other = Farm(signing.root, signer=few)
        with pytest.raises(MixedError):
            other.publish(other.change("14.3.0"))
        with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
            audit(other.target(TODAY), repair=True)
        assert other.fuse.writes == []
    assert audit(signing.target(TODAY), repair=True).left == ()
    assert loaded(signing.root / "store", CONFIG) == before
    assert generation_read(signing) == 1


def test_an_index_is_signed_with_no_key_that_it_does_not_have(farm: Farm) -> None:
    alone, both = (Farm(farm.root, signer=signer(pems)) for pems in (KEYS[:1], KEYS))
    alone.publish(alone.change(), now=TODAY)
    before = loaded(farm.root / "store", CONFIG)
    both.publish(both.change("14.3.0"), now=TODAY)
    lost(farm)
    assert audit(alone.target(TODAY), repair=True).left == ()
    assert loaded(farm.root / "store", CONFIG) == before
    assert generation_read(farm) == 2


def test_where_nobody_can_tell_whether_an_index_was_signed_nothing_is_written(farm: Farm) -> None:
    farm.publish(farm.change())
    lost(farm)
    file(farm, HEAD).unlink()
    farm.fuse.writes.clear()
    with pytest.raises(RefusedError, match="put back a copy"):
        audit(farm.target(TODAY), repair=True)
    assert farm.fuse.writes == []


def test_a_configuration_that_a_newer_version_wrote_is_left_as_it_is(farm: Farm) -> None:
    farm.publish(farm.change())
    newer = json.dumps({**loaded(farm.root / "store", CONFIG), "spec": 2})
    file(farm, CONFIG).write_text(newer)
    found = audit(farm.target(TODAY), repair=True)
    assert [(finding.code, finding.repairable) for finding in found.left] == [("config", False)]
    assert file(farm, CONFIG).read_text() == newer


@pytest.mark.parametrize("registry", ["my_registry:5000/dl", "host/x"])
def test_a_registry_that_is_refused_now_is_written_again_by_who_has_the_keys(
    signing: Farm, farm: Farm, registry: str
) -> None:
    before = {**loaded(farm.root / "store", CONFIG), "later": 1}
    file(farm, CONFIG).write_text(json.dumps({**before, "registry": registry}))
    for act in (lambda: signing.publish(signing.change("14.3.0")), lambda: generation_read(farm)):
        with pytest.raises(IntegrityError, match=r"audit --repair --registry HOST"):
            act()
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        audit(farm.target(TODAY), repair=True)
    assert loaded(farm.root / "store", CONFIG)["registry"] == registry
    mended = audit(signing.target(TODAY), repair=True)
    assert (codes(mended), mended.left) == (["config"], ())
    assert loaded(farm.root / "store", CONFIG) == before
    assert isinstance(signing.publish(signing.change("14.3.0"), now=TODAY), Committed)
    assert generation_read(farm) == 2


def test_a_head_that_a_newer_version_wrote_is_left_as_it_is(farm: Farm) -> None:
    change = farm.change()
    farm.publish(change)
    newer = json.dumps({**loaded(farm.root / "store", HEAD), "spec": 2})
    file(farm, HEAD).write_text(newer)
    (found,) = audit(farm.target(TODAY), repair=True).left
    assert (found.code, found.repairable) == ("head", False)
    (farm.root / "registry/dl/cupy/tags/14.2").unlink()
    for attempt in (lambda: audit(farm.target(TODAY), repair=True), lambda: farm.publish(change)):
        with pytest.raises(IntegrityError, match="update curator"):
            attempt()
    assert file(farm, HEAD).read_text() == newer


def test_a_damaged_configuration_hides_no_other_finding(farm: Farm) -> None:
    farm.publish(farm.change())
    damaged(farm)
    (farm.root / "registry/dl/cupy/tags/14.2").unlink()
    assert codes(audit(farm.target(TODAY))) == ["config", "missing-tag"]


def recovered(farm: Farm) -> None:
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        farm.recover(TODAY)


def repaired(farm: Farm) -> None:
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        audit(farm.target(TODAY), repair=True)


def published_again(farm: Farm) -> None:
    answer = farm.publish(farm.change("14.3.0"))
    assert isinstance(answer, AlreadyCommitted)
    assert isinstance(answer.unfinished, RefusedError)


@pytest.mark.parametrize("attempt", [recovered, repaired, published_again])
@pytest.mark.parametrize("which", ["none", "another", "one of two"])
def test_a_head_that_lags_is_left_to_those_who_can_sign_it(
    signing: Farm, which: str, attempt: Callable[[Farm], None]
) -> None:
    head = file(signing, HEAD).read_bytes()
    signing.publish(signing.change("14.3.0"), now=TODAY)
    for path, data in ((HEAD, head), ("v1/projected.json", b"{}")):
        file(signing, path).write_bytes(data)
    few = {"none": None, "another": new_signer(), "one of two": signer(KEYS[:1])}[which]
    other = Farm(signing.root, signer=few)
    attempt(other)
    assert other.fuse.writes == []
    assert generation_read(signing) == 1
    signing.recover(TODAY)
    assert generation_read(signing) == 2


@pytest.mark.parametrize("days", [0, 20])
def test_a_good_head_stays_where_nothing_is_to_be_done(signing: Farm, days: int) -> None:
    at = (datetime.fromisoformat(TODAY) + timedelta(days)).isoformat().replace("+00:00", "Z")
    head = file(signing, HEAD).read_bytes()
    for stranger in (None, new_signer()):
        other = Farm(signing.root, signer=stranger)
        assert audit(other.target(at), repair=True).findings == ()
        assert isinstance(other.publish(other.change(), now=at), AlreadyCommitted)
        other.recover(at)
    assert file(signing, HEAD).read_bytes() == head


def test_a_signer_does_not_give_an_end_to_an_index_that_is_not_signed(farm: Farm) -> None:
    change = farm.change()
    farm.publish(change)
    signing = Farm(farm.root, signer=new_signer())
    assert isinstance(signing.publish(change), AlreadyCommitted)
    assert "expires" not in loaded(farm.root / "store", HEAD)


def test_an_index_that_becomes_signed_can_be_read_at_every_instant(tmp_path: Path) -> None:
    for instant in range(0, 200, 2):
        farm = Farm(tmp_path / str(instant))
        farm.publish(farm.change())
        dying = Farm(farm.root, Fuse(burns_at=instant), signer=signer(KEYS))
        try:
            dying.publish(dying.change("14.3.0"), now=TODAY)
        except Killed:
            assert generation_read(farm) in {1, 2}
            with suppress(RefusedError):
                farm.publish(farm.change("14.4.0"), now=TODAY)
            assert generation_read(farm) in {1, 2, 3}
        else:
            assert loaded(farm.root / "store", CONFIG)["keys"]
            return
    raise AssertionError("the publish never ended")


@dataclass
class Turnless(FusedStore):
    """As a store that has no turns to give."""

    def turn(self, name: str) -> AbstractContextManager[None]:
        del name
        return nullcontext()


@pytest.mark.parametrize(("when", "found"), [("before", 2), ("after", 1)])
def test_who_has_no_keys_unsigns_no_head_of_an_index_that_becomes_signed(
    farm: Farm, when: str, found: int
) -> None:
    farm.publish(farm.change())
    first = Farm(farm.root, signer=signer(KEYS))

    def publish_unsigned() -> None:
        with suppress(RefusedError):
            other = farm.target(TODAY, store=Turnless(farm.documents, farm.fuse))
            publish([farm.change("14.4.0")], other)

    @dataclass
    class Dying(Turnless):
        beside: str = f"{when} {HEAD}"

        def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
            self.let_publish(f"before {path}")
            etag = self.inner.replace(path, data, expected_etag)
            self.let_publish(f"after {path}")
            if path == CONFIG:
                raise Killed
            return etag

        def let_publish(self, now: str) -> None:
            if now == self.beside:
                self.beside = ""
                publish_unsigned()

    store = Dying(farm.documents, farm.fuse)
    with pytest.raises(Killed):
        publish([first.change("14.3.0")], first.target(TODAY, store=store))
    assert loaded(farm.root / "store", CONFIG)["keys"]
    assert (store.beside, generation_read(farm)) == ("", found)


def test_an_index_that_moves_and_becomes_signed_at_once_keeps_its_keys(farm: Farm) -> None:
    farm.publish(farm.change())
    later = Farm(farm.root, signer=new_signer())

    @dataclass
    class Overtaken(Turnless):
        times: int = 1

        def read(self, path: str) -> Blob | None:
            found = self.inner.read(path)
            if path == CONFIG and self.times == 0:
                later.publish(later.change("14.3.0"), now=TODAY)
            self.times -= path == CONFIG
            return found

    moved = replace(
        farm.target(TODAY, store=Overtaken(farm.documents, farm.fuse)),
        place=Place(registry="elsewhere.example", prefix="dl"),
    )
    with pytest.raises(RefusedError, match="CURATOR_SIGNING_KEY"):
        recover(moved)
    assert loaded(farm.root / "store", CONFIG)["keys"]
