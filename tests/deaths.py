"""Publishers that die: real processes, a real registry, SIGKILL at a chosen or a random instant.

`Yard` is where they work. What they were told they note durably; `faults` then holds store and
registry against all of that.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from curator.index import HEAD_PATH
from curator.policy import admitted
from curator.publish import AlreadyCommitted, Change, Committed, Target, audit, publish, recover
from curator.registry import HttpRegistry
from curator.settings import Place
from curator.sign import signer
from curator.store import DirectoryStore
from tests import layouts
from tests.faults import Fault, FaultProxy, Kind
from tests.publishing import LATER, NOW, STABLE, Walk, loaded, reported
from tests.signing import private_pem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.oci import Digest
    from curator.ports import Blob, Store
    from curator.sign import Signer
    from tests.faults import Request

SPAWN = multiprocessing.get_context("spawn")
KEY = "key.pem"
SIGNATURE = re.compile(r"sha256-[0-9a-f]{64}\.sig")
MINORS = ("14.0", "14.1", "14.2", "14.3", "14.4")


@dataclass(frozen=True)
class Yard:
    """A store in a directory, and a place in a real registry."""

    root: Path
    place: Place

    @classmethod
    def made(cls, root: Path, place: Place, *, is_signed: bool = False) -> Yard:
        """Make one, with a key if all who publish there are to sign."""
        root.mkdir(parents=True, exist_ok=True)
        if is_signed:
            (root / KEY).write_bytes(private_pem())
        return cls(root, place)

    @property
    def signer(self) -> Signer | None:
        key = self.root / KEY
        return signer([key.read_bytes()]) if key.exists() else None

    def target(self, now: str = NOW) -> Target:
        registry = HttpRegistry(self.root / "docker", deadline_s=30.0)
        store = DirectoryStore(self.root / "store")
        return Target(store=store, registry=registry, place=self.place, now=now, signer=self.signer)

    def change(self, version: str, build: int) -> Change:
        """Push an image to staging, and return what publishes it."""
        entry, report = reported(version, build=build, verdict=STABLE)
        layout = layouts.image(self.root / "layouts" / entry.recipe, (entry.recipe.encode(),))
        staging = self.place.repository("staging/cupy").with_tag(entry.recipe)
        digest = self.target().registry.push(layout.path, staging)
        entry = entry.model_copy(update={"digest": digest, "platform_digest": digest})
        return Change(entry=admitted(entry), source=staging.with_digest(digest), evidence=(report,))

    def resolve(self, name: str) -> Digest | None:
        repository, _, tag = name.rpartition(":")
        found = self.target().registry.resolve(self.place.repository(repository).with_tag(tag))
        return found.digest if found else None

    def acknowledged(self) -> Iterator[tuple[str, str, int]]:
        """Yield entry id, publish id and generation of each answer that was noted."""
        for path in sorted(self.root.glob("acknowledged-*")):
            for line in path.read_text().splitlines():
                entry, publish_id, gen = json.loads(line)
                yield entry, publish_id, gen

    def faults(self) -> list[str]:
        """Return everything that was promised and is not so, after a repair."""
        walk = Walk(self.target().store, self.resolve).walked()
        known = {entry["id"] for entry in walk.entries}
        wrong = walk.violations()
        for entry, publish_id, gen in self.acknowledged():
            if entry not in known or walk.publishes.get(publish_id) != [gen]:
                wrong.append(f"{entry}: acknowledged in {gen}, and lost")
        head = loaded(self.root / "store", HEAD_PATH) if walk.generations else {}
        if head and bool(head["signatures"]) != (self.signer is not None):
            wrong.append(f"the head has the signatures {head['signatures']}")
        registry, repository = self.target().registry, self.place.repository("cupy")
        for tag in registry.tags(repository):
            if SIGNATURE.fullmatch(tag):
                continue  # held against its image by the audit
            found = registry.resolve(repository.with_tag(tag))
            if found is None or found.digest not in walk.ever:
                wrong.append(f"{tag} is on a digest that no generation names")
        return wrong

    def mended(self) -> list[str]:
        """Recover and repair as an operator would; return what is wrong then."""
        recover(self.target(LATER))
        first = audit(self.target(LATER), repair=True)
        second = audit(self.target(LATER), repair=True)
        wrong = [f"left: {finding}" for finding in first.left]
        wrong += [f"a second repair wrote {what}" for what in second.repaired]
        return [*wrong, *self.faults()]


def publish_for_ever(yard: Yard, writer: int) -> None:
    """Publish one image after another, and note each answer durably before the next."""
    log = yard.root / f"acknowledged-{writer}"
    number = len(log.read_text().splitlines()) if log.exists() else 0
    # A line that was half written when its writer died was never acknowledged to anybody.
    while True:
        number += 1
        build = writer * 1_000_000 + time.monotonic_ns() % 1_000_000
        change = yard.change(f"{MINORS[number % len(MINORS)]}.{writer}", build)
        answer = publish([change], yard.target())
        if not isinstance(answer, Committed | AlreadyCommitted) or answer.unfinished:
            raise SystemExit(f"writer {writer}: {answer}")
        name = answer.publish if isinstance(answer, Committed) else ""
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(descriptor, (json.dumps([change.entry.id, name, answer.gen]) + "\n").encode())
        os.fsync(descriptor)
        os.close(descriptor)


def publish_once(yard: Yard, change: Change, checkpoint: int | None) -> None:
    """Publish one image; die at a store write: 2n is before the n-th, 2n + 1 after it."""
    target = yard.target()
    answer = publish([change], replace(target, store=Deadly(target.store, checkpoint)))
    assert isinstance(answer, Committed | AlreadyCommitted)


@dataclass
class Deadly:
    """A store during whose writes its process kills itself."""

    inner: Store
    checkpoint: int | None
    passed: int = field(default=0)

    def _pass(self) -> None:
        if self.passed == self.checkpoint:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1

    def read(self, path: str) -> Blob | None:
        return self.inner.read(path)

    def list(self, prefix: str) -> tuple[str, ...]:
        return self.inner.list(prefix)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        with self.inner.turn(name):
            yield

    def add(self, path: str, data: bytes) -> None:
        self._pass()
        self.inner.add(path, data)
        self._pass()

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        self._pass()
        etag = self.inner.replace(path, data, expected_etag)
        self._pass()
        return etag


def died_at_write(yard: Yard, change: Change, checkpoint: int) -> bool:
    """Let a process publish and die at a store write; False if it ended before that."""
    process = SPAWN.Process(target=publish_once, args=(yard, change, checkpoint))
    process.start()
    process.join()
    return process.exitcode == -signal.SIGKILL


def died_at_request(yard: Yard, change: Change, number: int, *, after: bool) -> bool:
    """Let a process publish and die at its n-th HTTP request; False if it had fewer.

    `after` lets the registry do it, breaks the connection, and kills before anything else.
    """
    victim: list[int] = []

    def plan(request: Request) -> Fault | None:
        if after and request.number == number:
            return Fault(kind=Kind.RESET_AFTER)
        if request.number == number + after:
            while not victim:
                time.sleep(0.001)
            os.kill(victim[0], signal.SIGKILL)
            return Fault(kind=Kind.RESET_BEFORE)
        return None

    with FaultProxy(yard.place.registry, plan) as proxy:
        place = Place(registry=proxy.address, prefix=yard.place.prefix)
        source = replace(change.source, registry=proxy.address) if change.source else None
        process = SPAWN.Process(
            target=publish_once, args=(Yard(yard.root, place), replace(change, source=source), None)
        )
        process.start()
        victim.append(process.pid or 0)
        process.join()
    return process.exitcode == -signal.SIGKILL


def killed_at_random(yard: Yard, *, writers: int, kills: int, seed: int) -> None:
    """Let publishers work, killing one at a random instant and starting it again, many times."""
    instants = random.Random(seed)  # noqa: S311 - replayable on purpose

    def started(writer: int) -> multiprocessing.process.BaseProcess:
        process = SPAWN.Process(target=publish_for_ever, args=(yard, writer))
        process.start()
        return process

    running = [started(writer) for writer in range(writers)]
    while not all((yard.root / f"acknowledged-{writer}").exists() for writer in range(writers)):
        time.sleep(0.01)
    for number in range(kills):
        time.sleep(instants.uniform(0.0, 0.3))
        victim = instants.randrange(writers)
        _kill(running[victim])
        if number < kills - 1:
            running[victim] = started(victim)
            time.sleep(instants.uniform(0.0, 1.2))
    for process in running:
        _kill(process)


def _kill(process: multiprocessing.process.BaseProcess) -> None:
    if process.exitcode not in {None, -signal.SIGKILL}:
        raise AssertionError(f"a publisher ended by itself with {process.exitcode}")
    process.kill()
    process.join()
