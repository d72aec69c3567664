"""What is acknowledged is kept, whoever dies, and nobody sees half of it."""

from __future__ import annotations

import itertools
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from curator.errors import TemporaryError
from curator.index import read_index
from curator.publish import AlreadyCommitted, Change, Committed, Target, publish
from curator.settings import Place
from tests.deaths import Yard, died_at_request, died_at_write, killed_at_random
from tests.publishing import (
    CANDIDATE,
    LATER,
    NOW,
    PLACE,
    Farm,
    Fuse,
    Killed,
    check,
    in_memory,
)
from tests.signing import new_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from curator.ports import Blob, Store
    from curator.sign import Signer


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def target_of(farm: Farm, store: Store) -> Target:
    return Target(store=store, registry=farm.images, place=PLACE, now=NOW)


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def first_of_all(farm: Farm) -> Change:
    return farm.change()


def beside_others(farm: Farm) -> Change:
    other = Farm(farm.root, signer=farm.signer)
    other.publish(other.change("14.2.0", cuda="12.6"), other.change("14.2.1", verdict=CANDIDATE))
    return farm.change("14.2.2")


def is_killed(farm: Farm, change: Change) -> bool:
    """Let a publisher run until its fuse burns; False if it ended before that."""
    try:
        farm.publish(change)
    except Killed:
        return True
    return False


@pytest.mark.parametrize(
    ("prepare", "step", "signer"),
    [(first_of_all, 2, None), (beside_others, 3, None), (beside_others, 3, new_signer("ed25519"))],
)
def test_killed_at_every_instant_and_recovered(
    tmp_path: Path, prepare: Callable[[Farm], Change], step: int, signer: Signer | None
) -> None:
    for instant in itertools.count(0, step):
        farm = Farm(tmp_path / str(instant), Fuse(burns_at=instant), signer)
        change = prepare(farm)
        if not is_killed(farm, change):
            break
        check(farm, finished=False)
        known = {entry.id for entry in read_index(farm.documents).entries}
        alive = Farm(farm.root, signer=signer)
        alive.recover()
        assert {entry["id"] for entry in check(farm)} == known
        assert alive.recover() == ()
        answer = alive.publish(change)
        committed = change.entry.id in known
        assert isinstance(answer, AlreadyCommitted if committed else Committed)
        assert change.entry.id in {entry["id"] for entry in check(farm)}
    assert instant > 60


def test_killed_at_every_instant_and_finished_by_the_next_publish(tmp_path: Path) -> None:
    for instant in itertools.count(0, 2):
        farm = Farm(tmp_path / str(instant), Fuse(burns_at=instant))
        if not is_killed(farm, farm.change()):
            break
        alive = Farm(farm.root)
        other = alive.change("14.3.0")
        assert isinstance(alive.publish(other), Committed)
        assert other.entry.id in {entry["id"] for entry in check(farm)}
    assert instant > 60


def test_killed_recoveries_are_recovered(tmp_path: Path) -> None:
    for instant in range(0, 200, 3):
        farm = Farm(tmp_path / str(instant), Fuse(burns_at=14))
        while not farm.documents.list("v1/gen/"):
            with pytest.raises(Killed):
                farm.publish(farm.change())
            farm = Farm(farm.root, Fuse(burns_at=(farm.fuse.burns_at or 0) + 1))
        dying = Farm(farm.root, Fuse(burns_at=instant))
        try:
            dying.recover()
        except Killed:
            Farm(farm.root).recover()
            check(farm)
        else:
            check(farm)
            return
    raise AssertionError("the recovery never ended")


@dataclass
class Ambiguous:
    """A store whose chosen write lands or not, and answers that it does not know."""

    inner: Store
    part: str
    lands: bool
    times: int = 1

    def read(self, path: str) -> Blob | None:
        return self.inner.read(path)

    def list(self, prefix: str) -> tuple[str, ...]:
        return self.inner.list(prefix)

    def turn(self, name: str) -> AbstractContextManager[None]:
        return self.inner.turn(name)

    def add(self, path: str, data: bytes) -> None:
        if self._strikes(path):
            if self.lands:
                self.inner.add(path, data)
            raise TemporaryError(f"{path}: timed out")
        self.inner.add(path, data)

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        if self._strikes(path):
            if self.lands:
                self.inner.replace(path, data, expected_etag)
            raise TemporaryError(f"{path}: timed out")
        return self.inner.replace(path, data, expected_etag)

    def _strikes(self, path: str) -> bool:
        if self.part in path and self.times:
            self.times -= 1
            return True
        return False


@pytest.mark.parametrize(
    "part", ["config", "evidence", "shard", "gen/", "head", "index", "projected"]
)
@pytest.mark.parametrize("lands", [True, False])
def test_an_answer_that_got_lost_is_decided_by_reading(
    farm: Farm, part: str, *, lands: bool
) -> None:
    change = farm.change()
    store = Ambiguous(farm.documents, part, lands)
    after_commit = part in {"head", "index", "projected"} or (part == "gen/" and lands)
    try:
        answer = publish([change], target_of(farm, store))
    except TemporaryError:
        assert not after_commit
        assert farm.documents.list("v1/gen/") == ()
        answer = publish([change], target_of(farm, store))
    assert isinstance(answer, Committed)
    assert answer.gen == 1
    assert (answer.unfinished is not None) == (part in {"head", "index", "projected"})
    farm.recover()
    check(farm)


def test_a_lost_race_is_run_again_on_the_winner(farm: Farm) -> None:
    winner, loser = farm.change("14.2.0"), farm.change("14.2.1")

    class Overtaken(Ambiguous):
        def turn(self, name: str) -> AbstractContextManager[None]:
            del name  # as a store that has no turns to give
            return nullcontext()

        def add(self, path: str, data: bytes) -> None:
            if self._strikes(path):
                Farm(farm.root).publish(winner)
            self.inner.add(path, data)

    store = Overtaken(farm.documents, "gen/", lands=True)
    answer = publish([loser], target_of(farm, store))
    assert isinstance(answer, Committed)
    assert answer.gen == 2
    assert {entry["id"] for entry in check(farm)} == {winner.entry.id, loser.entry.id}


def test_the_same_change_by_two_publishers_is_one_publish(farm: Farm) -> None:
    change = farm.change()

    class Overtaken(Ambiguous):
        def turn(self, name: str) -> AbstractContextManager[None]:
            del name  # as a store that has no turns to give
            return nullcontext()

        def add(self, path: str, data: bytes) -> None:
            if self._strikes(path):
                farm.publish(change, now=LATER)
            self.inner.add(path, data)

    store = Overtaken(farm.documents, "gen/", lands=True)
    answer = publish([change], target_of(farm, store))
    assert isinstance(answer, Committed)
    assert answer.gen == 1
    assert len(farm.documents.list("v1/gen/")) == 1
    check(farm)


@pytest.fixture(params=[False, True], ids=["unsigned", "signed"])
def yard(request: pytest.FixtureRequest, tmp_path: Path, registry_address: str) -> Yard:
    place = Place(registry=registry_address, prefix=f"t/yard-{uuid.uuid4().hex}")
    return Yard.made(tmp_path, place, is_signed=request.param)


def test_publishers_killed_at_random_lose_nothing_acknowledged(yard: Yard) -> None:
    killed_at_random(yard, writers=3, kills=10, seed=3)
    assert list(yard.acknowledged())
    assert yard.mended() == []


@pytest.mark.parametrize("checkpoint", [2, 9, 12, 15, 19])
def test_a_publisher_killed_at_a_store_write_is_recovered(yard: Yard, checkpoint: int) -> None:
    change = yard.change("14.2.0", 1)
    assert died_at_write(yard, change, checkpoint)
    assert yard.mended() == []
    assert isinstance(publish([change], yard.target()), Committed | AlreadyCommitted)
    assert yard.mended() == []


@pytest.mark.parametrize(("number", "after"), [(1, False), (4, True), (6, True), (8, False)])
def test_a_publisher_killed_at_a_request_is_recovered(
    yard: Yard, number: int, *, after: bool
) -> None:
    change = yard.change("14.2.0", 1)
    assert died_at_request(yard, change, number, after=after)
    assert yard.mended() == []
    assert isinstance(publish([change], yard.target()), Committed | AlreadyCommitted)
    assert yard.mended() == []


@pytest.mark.parametrize("number", range(5))
def test_of_two_first_publishers_one_names_the_store(farm: Farm, number: int) -> None:
    winner, loser = farm.change("14.2.0"), farm.change("14.2.1")

    class Overtaken(Ambiguous):
        def turn(self, name: str) -> AbstractContextManager[None]:
            del name  # as a store that has no turns to give
            return nullcontext()

        def read(self, path: str) -> Blob | None:
            found = self.inner.read(path)
            self.times -= path.endswith("config.json")
            if self.times == 0 and path.endswith("config.json"):
                Farm(farm.root).publish(winner)
            return found

    store = Overtaken(farm.documents, "nothing", lands=True, times=number + 1)
    answer = publish([loser], target_of(farm, store))
    assert isinstance(answer, Committed)
    assert answer.unfinished is None
    entries = {entry["id"] for entry in check(farm)}
    assert loser.entry.id in entries
    assert (winner.entry.id in entries) == (store.times <= 0)
