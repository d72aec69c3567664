"""What a promotion costs: ours and other tools, from one repository to another of a registry.

    python -m tests.bench.promotion [RUNS] [MEGABYTES]

The image is as BuildKit pushes it: an index of an image and its attestation, five blobs. Requests
and bytes of bodies are counted by a proxy that breaks nothing, in the second of two runs; times
are those of whole processes without it, each run into a repository that is new. docker pulls no
attestation and then cannot push the index: it promotes the one image in it, and forgets it again.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from curator import provision, settings
from curator.oci import Reference
from curator.provision import _processes
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import FaultProxy
from tests.peers import peers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.oci import Digest
    from curator.ports import EngineAddress

TAG = "promoted"
OURS = """
import sys
from curator.oci import Reference
from curator.registry import HttpRegistry
source, target = map(Reference.parse, sys.argv[1:])
registry = HttpRegistry()
digest = registry.copy(source, target)
registry.tag(target.with_digest(digest), target.tag)
"""

# Makes the image at a digest available under a tag of another repository.
Tool = Callable[[Reference, Reference], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one tool took: requests, bytes each way, PUTs on the tag, and seconds (p50)."""

    name: str
    requests: int
    sent: int
    received: int
    tag_puts: int
    kept: bool
    seconds: float


def ours(source: Reference, target: Reference) -> None:
    """Promote in a process of its own."""
    run([sys.executable, "-c", OURS, str(source), str(target)])


def warm() -> Tool:
    """Promote with a client that promoted before, and keeps its connections and manifests."""
    registry = HttpRegistry()

    def promote(source: Reference, target: Reference) -> None:
        digest = registry.copy(source, target)
        registry.tag(target.with_digest(digest), str(target.tag))

    return promote


def fresh(source: Reference, target: Reference) -> None:
    """Promote with a new client in a process that runs already."""
    warm()(source, target)


def run(command: list[str]) -> None:
    """Run a program to its end."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise AssertionError(f"{' '.join(command)}: {result.stderr.strip()[-2000:]}")


def tools(cache: Path, engine: EngineAddress, inner: Digest) -> Iterator[tuple[str, Tool]]:
    """Give every way to promote that this machine has; `inner` is the image in the index."""
    yield "curator, a process", ours
    yield "curator, a new client", fresh
    yield "curator, a warm client", warm()
    found = peers(cache)
    skopeo = ["--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"]
    yield (
        "skopeo copy --all --preserve-digests",
        lambda s, t: _ran(found["skopeo"].run("copy", *skopeo, f"docker://{s}", f"docker://{t}")),
    )
    plain = ["--from-plain-http", "--to-plain-http"]
    yield "oras cp -r", lambda s, t: _ran(found["oras"].run("cp", "-r", *plain, str(s), str(t)))
    docker = list(engine.command)
    create = [*docker, "buildx", "imagetools", "create"]
    yield "buildx imagetools create", lambda s, t: run([*create, "-t", str(t), str(s)])
    yield "docker pull + tag + push", lambda s, t: through_engine(docker, s.with_digest(inner), t)
    if "crane" in found:
        yield "crane copy", lambda s, t: _ran(found["crane"].run("copy", str(s), str(t)))


def _ran(_result: object) -> None:
    """Drop a result: that it came is what matters."""


def through_engine(docker: list[str], source: Reference, target: Reference) -> None:
    """Promote as people do by hand; the engine forgets the image again."""
    run([*docker, "pull", "--quiet", str(source)])
    run([*docker, "tag", str(source), str(target)])
    run([*docker, "push", "--quiet", str(target)])
    run([*docker, "rmi", "--force", str(source), str(target)])


def measured(name: str, tool: Tool, source: Reference, runs: int) -> Cost:
    """Count one run and time others."""
    reader, seconds = HttpRegistry(), []
    with FaultProxy(source.registry) as proxy:
        for _ in range(2):  # what is kept from one run to the next shows in the second
            counted = proxy.through(new_repository(source, name))
            proxy.forget()
            tool(proxy.through(source), counted)
        exchanges = list(proxy.exchanges)
    found = reader.resolve(replace(counted, registry=source.registry))
    for _ in range(runs):
        target = new_repository(source, name)
        start = time.perf_counter()
        tool(source, target)
        seconds.append(time.perf_counter() - start)
    puts = [e for e in exchanges if e.request.method == "PUT" and e.request.path.endswith(TAG)]
    return Cost(
        name=name,
        requests=len(exchanges),
        sent=sum(exchange.received for exchange in exchanges),
        received=sum(exchange.sent for exchange in exchanges),
        tag_puts=len(puts),
        kept=found is not None and found.digest == source.digest,
        seconds=statistics.median(seconds),
    )


def new_repository(source: Reference, name: str) -> Reference:
    """Return a tag in a repository that was never used."""
    plain = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-").replace("--", "-")
    repository = f"to/{plain.replace('--', '-')}/r{time.monotonic_ns()}"
    return Reference(registry=source.registry, repository=repository, tag=TAG)


def staged(address: str, work: Path, size: int) -> tuple[Reference, Digest]:
    """Push the image that is promoted; return it, and the digest of the image in its index."""
    layout = layouts.attested(work / "layout", [os.urandom(size // 2) for _ in range(2)])
    target = Reference(registry=address, repository="staging/x", tag="key")
    digest = HttpRegistry().push(layout.path, target)
    return target.with_digest(digest), layout.manifests[0].digest


def show(costs: list[Cost]) -> None:
    """Print the table, each figure beside its ratio to our own process's."""
    first = costs[0]
    print(f"{'tool':<38} {'requests':>14} {'bytes moved':>12} {'p50 ms':>16} kept  tag PUTs")
    for cost in costs:
        moved = cost.sent + cost.received
        requests = f"{cost.requests} ({cost.requests / first.requests:.1f}x)"
        times = f"{1000 * cost.seconds:.0f} ({cost.seconds / first.seconds:.1f}x)"
        kept = "yes" if cost.kept else "NO"
        print(f"{cost.name:<38} {requests:>14} {moved:>12} {times:>16} {kept:<5} {cost.tag_puts}")


def main() -> None:
    """Measure every tool and print the table."""
    runs, megabytes = (*map(int, sys.argv[1:]), *(9, 167)[len(sys.argv) - 1 :])
    cache = settings.cache_directory(os.environ)
    engine = provision.up(cache).engine
    assert engine is not None
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        programs = cache / "engine" / "tools"
        address = provision.start_registry(work / "registry", programs, port=_processes.free_port())
        try:
            source, inner = staged(address, work, megabytes * 1_000_000)
            found = tools(cache, engine, inner)
            show([measured(name, tool, source, runs) for name, tool in found])
        finally:
            provision.stop_registry(work / "registry")


if __name__ == "__main__":
    main()
