"""Promotions and publishes through servers that fail by chance: each has to complete.

    python -m tests.bench.faults [SEED]

Runs 200 promotions with a fault in every fifth request, and 50 with one in every second: status
codes, Retry-After, broken connections before and after the server acted, short bodies, and answers
that take their time. Then as many whole publishes, with such faults in the traffic of the registry
and of the blob storage (Azurite) that keeps the index, which every other farm signs; a checker
walks what was published. Nothing may come before the time that a Retry-After asked for. A failing
run is replayed by its seed.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator import provision, settings
from curator.errors import CuratorError
from curator.provision import _processes
from curator.publish import Committed, publish
from curator.registry import HttpRegistry
from curator.settings import Place
from tests import layouts
from tests.azurite import Azurite, BlobProxy
from tests.deaths import Yard
from tests.faults import Exchange, FaultProxy, Kind, seeded
from tests.publishing import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.oci import Reference
    from tests.layouts import Layout

THREADS = 8
FARMS = 10
SIZES = ((200, 0.2), (50, 0.5))


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a number of promotions."""

    promotions: int
    complete: int = 0
    failures: list[str] = field(default_factory=list)
    requests: int = 0
    faults: int = 0
    slow: int = 0
    early: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, exchanges: Iterable[Exchange]) -> None:
        """Count what was asked and what went wrong."""
        faults = [exchange.fault for exchange in exchanges]
        self.requests = len(faults)
        self.faults = sum(fault is not None for fault in faults)
        self.slow = sum(fault is not None and fault.kind is Kind.SLOW for fault in faults)


def promotions(place: Place, work: Path, *, count: int, share: float, seed: int) -> Outcome:
    """Promote images through seeded faults, eight at a time, and look at what arrived."""
    images = [layouts.attested(work / str(n), (b"%d" % n, b"layer")) for n in range(count)]
    clean, outcome = HttpRegistry(work / "docker"), Outcome(promotions=count)
    staging = place.repository("staging")
    for number, image in enumerate(images):
        clean.push(image.path, staging.with_tag(str(number)))
    start = time.monotonic()
    with FaultProxy(staging.registry, seeded(seed, share=share)) as proxy:
        through = HttpRegistry(work / "docker", deadline_s=120)

        def promote(number: int) -> str | None:
            # Repositories of their own: distribution loses links when several writers meet.
            target = proxy.through(place.repository(f"to{number}"))
            try:
                digest = through.copy(
                    proxy.through(staging).with_digest(images[number].digest), target
                )
                through.tag(target.with_digest(digest), "one")
            except CuratorError as error:
                return f"{number}: {error}"
            return None

        with ThreadPoolExecutor(THREADS) as pool:
            outcome.failures = [told for told in pool.map(promote, range(count)) if told]
        exchanges = list(proxy.exchanges)
    outcome.seconds = time.monotonic() - start
    outcome.count(exchanges)
    outcome.early = early(exchanges)
    outcome.complete = sum(
        is_whole(clean, place.repository(f"to{number}"), image)
        for number, image in enumerate(images)
    )
    return outcome


def publishes(place: Place, azurite: Azurite, work: Path, *, count: int, seed: int) -> Outcome:
    """Publish images with the index in Azurite, in as many farms at once as there are threads."""
    outcome = Outcome(promotions=count)
    share = 0.2 if count > 100 else 0.5
    start = time.monotonic()
    with (
        FaultProxy(place.registry, seeded(seed, share=share)) as registry,
        BlobProxy(azurite.address, seeded(seed + 1, share=share)) as blobs,
    ):

        def farm(number: int) -> list[str]:
            prefix = f"{place.prefix}/farm{number}"
            there = Place(registry=place.registry, prefix=prefix)
            clean = Yard.made(work / str(number), there, is_signed=number % 2 == 1)
            container = azurite.created()
            store = azurite.through(blobs.address).store(container, deadline_s=300.0)
            target = replace(
                clean.target(),
                store=store,
                registry=HttpRegistry(work / "docker", deadline_s=300.0),
                place=Place(registry=registry.address, prefix=prefix),
            )
            wrong = []
            for build in range(count // FARMS):
                change = clean.change(f"14.{build % 5}.{build}", build)
                assert change.source
                change = replace(change, source=registry.through(change.source))
                try:
                    answer = publish([change], target)
                except CuratorError as error:
                    wrong.append(f"{number}/{build}: {error}")
                    continue
                if isinstance(answer, Committed) and answer.unfinished is None:
                    outcome.complete += 1
                else:
                    wrong.append(f"{number}/{build}: {answer}")
            walk = Walk(azurite.store(container), clean.resolve).walked()
            return [*wrong, *walk.violations(), *_twice(walk)]

        with ThreadPoolExecutor(FARMS) as pool:
            for wrong in pool.map(farm, range(FARMS)):
                outcome.failures += wrong
        exchanges = [*registry.exchanges, *blobs.exchanges]
        outcome.early = [*early(registry.exchanges), *early(blobs.exchanges)]
    outcome.seconds = time.monotonic() - start
    outcome.count(exchanges)
    return outcome


def _twice(walk: Walk) -> list[str]:
    """Return what was committed twice because an answer got lost."""
    return [f"{name} stands in {found}" for name, found in walk.publishes.items() if len(found) > 1]


def is_whole(registry: HttpRegistry, target: Reference, image: Layout) -> bool:
    """Whether tag, manifests and blobs arrived."""
    found = registry.resolve(target.with_tag("one"))
    return (
        found == image.image.descriptor
        and all(registry.manifest(target.with_digest(m.digest)) == m for m in image.manifests)
        and all(registry.blob(target, blob) for blob in image.blobs)
    )


def early(exchanges: Iterable[Exchange]) -> list[str]:
    """Return the requests that came again before the time that their answer asked for."""
    until: dict[str, float] = {}
    found = []
    for exchange in exchanges:
        key, fault = exchange.request.key, exchange.fault
        if exchange.request.at < until.pop(key, 0.0):
            found.append(key)
        if fault is not None and "Retry-After" in fault.headers:
            until[key] = exchange.request.at + float(fault.headers["Retry-After"])
    return found


def main() -> None:
    """Run both shares of both kinds and print what came of them."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 1_000_000
    cache = settings.cache_directory(os.environ)
    provision.up(cache)
    failed = False
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        work = Path(directory)
        port = _processes.free_port()
        address = provision.start_registry(work / "registry", cache / "engine/tools", port=port)
        stack.callback(provision.stop_registry, work / "registry")
        azurite = Azurite(connection=provision.start_azurite(cache, work / "azurite"))
        stack.callback(provision.stop_azurite, work / "azurite")
        for kind, (count, share) in itertools.product(("promotion", "publish"), SIZES):
            place = Place(registry=address, prefix=f"{kind}{int(share * 10)}")
            inside = work / place.prefix
            inside.mkdir()
            if kind == "promotion":
                found = promotions(place, inside, count=count, share=share, seed=seed)
            else:
                found = publishes(place, azurite, inside, count=count, seed=seed)
            failed |= found.complete < count or bool(found.early or found.failures)
            print(
                f"{kind}, seed {seed}, p = {share}: {found.complete} of {count} complete, "
                f"{found.faults} of {found.requests} requests failed or were slow ({found.slow}), "
                f"{len(found.early)} came before their Retry-After, {found.seconds:.0f} s",
                flush=True,
            )
            print(*found.failures, *found.early, sep="\n", end="")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
