"""What is acknowledged is kept, whoever dies, and nobody sees half of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from curator.errors import TemporaryError
from curator.index import read_index
from curator.publish import AlreadyCommitted, Change, Committed, publish
from tests.publishing import (
    CANDIDATE,
    LATER,
    NOW,
    PLACE,
    Farm,
    Fuse,
    Killed,
    check,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from curator.ports import Blob, Store

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path)


def total_instants(root: Path, prepare: Callable[[Farm], Change]) -> int:
    farm = Farm(root)
    change = prepare(farm)
    farm.publish(change)
    return farm.fuse.instants


def first_of_all(farm: Farm) -> Change:
    return farm.change()


def beside_others(farm: Farm) -> Change:
    other = Farm(farm.root)
    other.publish(other.change("14.2.0", cuda="12.6"), other.change("14.2.1", verdict=CANDIDATE))
    return farm.change("14.2.2")


@pytest.mark.parametrize("prepare", [first_of_all, beside_others])
def test_killed_at_every_instant_and_recovered(
    tmp_path: Path, prepare: Callable[[Farm], Change]
) -> None:
    instants = total_instants(tmp_path / "whole", prepare)
    assert instants > 40
    for instant in range(instants):
        farm = Farm(tmp_path / str(instant), Fuse(burns_at=instant))
        change = prepare(farm)
        with pytest.raises(Killed):
            farm.publish(change)
        check(farm, finished=False)
        known = {entry.id for entry in read_index(farm.documents).entries}
        alive = Farm(farm.root)
        alive.recover()
        assert {entry["id"] for entry in check(farm)} == known
        assert alive.recover() == ()
        answer = alive.publish(change)
        committed = change.entry.id in known
        assert isinstance(answer, AlreadyCommitted if committed else Committed)
        assert change.entry.id in {entry["id"] for entry in check(farm)}


def test_killed_at_every_instant_and_finished_by_the_next_publish(tmp_path: Path) -> None:
    instants = total_instants(tmp_path / "whole", first_of_all)
    for instant in range(instants):
        farm = Farm(tmp_path / str(instant), Fuse(burns_at=instant))
        with pytest.raises(Killed):
            farm.publish(farm.change())
        alive = Farm(farm.root)
        other = alive.change("14.3.0")
        assert isinstance(alive.publish(other), Committed)
        assert other.entry.id in {entry["id"] for entry in check(farm)}


def test_killed_recoveries_are_recovered(tmp_path: Path) -> None:
    for instant in range(200):
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
        answer = publish([change], store=store, registry=farm.images, place=PLACE, now=NOW)
    except TemporaryError:
        assert not after_commit
        assert farm.documents.list("v1/gen/") == ()
        answer = publish([change], store=store, registry=farm.images, place=PLACE, now=NOW)
    assert isinstance(answer, Committed)
    assert answer.gen == 1
    assert (answer.unfinished is not None) == (part in {"head", "index", "projected"})
    farm.recover()
    check(farm)


def test_a_lost_race_is_run_again_on_the_winner(farm: Farm) -> None:
    winner, loser = farm.change("14.2.0"), farm.change("14.2.1")

    class Overtaken(Ambiguous):
        def add(self, path: str, data: bytes) -> None:
            if self._strikes(path):
                farm.publish(winner)
            self.inner.add(path, data)

    store = Overtaken(farm.documents, "gen/", lands=True)
    answer = publish([loser], store=store, registry=farm.images, place=PLACE, now=NOW)
    assert isinstance(answer, Committed)
    assert answer.gen == 2
    assert {entry["id"] for entry in check(farm)} == {winner.entry.id, loser.entry.id}


def test_the_same_change_by_two_publishers_is_one_publish(farm: Farm) -> None:
    change = farm.change()

    class Overtaken(Ambiguous):
        def add(self, path: str, data: bytes) -> None:
            if self._strikes(path):
                farm.publish(change, now=LATER)
            self.inner.add(path, data)

    store = Overtaken(farm.documents, "gen/", lands=True)
    answer = publish([change], store=store, registry=farm.images, place=PLACE, now=NOW)
    assert isinstance(answer, Committed)
    assert answer.gen == 1
    assert len(farm.documents.list("v1/gen/")) == 1
    check(farm)


def publish_many(root: Path, name: int, times: int) -> None:
    """Publish images one by one, and note each acknowledgement on the disk."""
    farm = Farm(root)
    for number in range(times):
        change = farm.change(f"14.{name}.{number}", cuda="12.9" if number % 2 else "13.0")
        answer = farm.publish(change)
        assert isinstance(answer, Committed | AlreadyCommitted)
        assert answer.unfinished is None
        with (root / f"acknowledged-{name}").open("a") as log:
            log.write(change.entry.id + "\n")


def acknowledged(root: Path) -> set[str]:
    return {line for path in root.glob("acknowledged-*") for line in path.read_text().split()}


def test_eight_processes_lose_nothing(farm: Farm) -> None:
    processes = [SPAWN.Process(target=publish_many, args=(farm.root, n, 20)) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    entries = check(farm)
    assert len(entries) == 160
    assert {entry["id"] for entry in entries} == acknowledged(farm.root)
    assert len(farm.documents.list("v1/gen/")) == 160
    assert farm.recover() == ()


def test_killed_processes_lose_nothing_acknowledged(farm: Farm) -> None:
    for number in range(6):
        processes = [
            SPAWN.Process(target=publish_many, args=(farm.root, 3 * number + n, 1000))
            for n in range(3)
        ]
        for process in processes:
            process.start()
        while not list(farm.root.glob(f"acknowledged-{3 * number}*")):
            time.sleep(0.01)
        time.sleep(0.2 + 0.037 * number)
        for process in processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        farm.recover()
        assert acknowledged(farm.root) <= {entry["id"] for entry in check(farm)}
        assert farm.recover() == ()
