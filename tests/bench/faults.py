"""Promotions through a registry that fails by chance: each has to complete, and to wait as asked.

    python -m tests.bench.faults [SEED]

Runs 200 promotions with a fault in every fifth request, and 50 with one in every second: status
codes, Retry-After, broken connections before and after the registry acted, short bodies. A failing
run is replayed by its seed; with one promotion at a time also request for request.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curator import provision, settings
from curator.errors import CuratorError
from curator.provision import _processes
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import Exchange, FaultProxy, seeded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.oci import Reference
    from curator.settings import Place
    from tests.layouts import Layout

THREADS = 8


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a number of promotions."""

    promotions: int
    complete: int = 0
    failures: list[str] = field(default_factory=list)
    requests: int = 0
    faults: int = 0
    early: list[str] = field(default_factory=list)
    seconds: float = 0.0


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
    outcome.requests = len(exchanges)
    outcome.faults = sum(exchange.fault is not None for exchange in exchanges)
    outcome.early = early(exchanges)
    outcome.complete = sum(
        is_whole(clean, place.repository(f"to{number}"), image)
        for number, image in enumerate(images)
    )
    return outcome


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
    """Run both shares and print what came of them."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 1_000_000
    cache = settings.cache_directory(os.environ)
    provision.up(cache)
    failed = False
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        port = _processes.free_port()
        address = provision.start_registry(work / "registry", cache / "engine/tools", port=port)
        try:
            for count, share in ((200, 0.2), (50, 0.5)):
                place = settings.Place(registry=address, prefix=f"p{int(share * 10)}")
                found = promotions(place, work / place.prefix, count=count, share=share, seed=seed)
                failed |= found.complete < count or bool(found.early)
                print(
                    f"seed {seed}, p = {share}: {found.complete} of {count} complete, "
                    f"{found.faults} of {found.requests} requests failed, "
                    f"{len(found.early)} came before their Retry-After, {found.seconds:.0f} s"
                )
                print(*found.failures, *found.early, sep="\n", end="")
        finally:
            provision.stop_registry(work / "registry")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
