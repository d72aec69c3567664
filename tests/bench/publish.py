"""Many publishers at once: how many publishes a second, how long one waits, and is anything lost.

    python -m tests.bench.publish --writers 32 --each 100 [--store azurite] [--signed]

Each publish is an image of its own, in one of five groups whose moving tags all writers share. Each
answer is noted on the disk before the next publish. A checker that uses nothing of the package
then walks the chain. The yardsticks are what one small write with fsync costs in the same run, and
what the writers and everything else on the machine took of its processors.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator import provision, settings
from curator.publish import Committed, publish
from curator.sign import signer
from curator.store import open_store
from tests.publishing import Farm, Walk
from tests.signing import private_pem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.synchronize import Barrier

KEY = "key.pem"
SPAWN = multiprocessing.get_context("spawn")
MINORS = [f"14.{number}" for number in range(5)]
CUDAS = [f"{major}.{minor}" for major in (12, 13) for minor in range(6)]


@dataclass(frozen=True)
class Job:
    """What one publisher does; `location` is where the store is."""

    root: Path
    location: str
    environment: Mapping[str, str]
    writer: int
    each: int


def work(job: Job, start: Barrier) -> None:
    """Publish images one by one, and note each answer durably before the next."""
    key = job.root / KEY
    farm = Farm(job.root, signer=signer([key.read_bytes()]) if key.exists() else None)
    store = open_store(job.location, job.environment)
    start.wait()
    with (job.root / f"acknowledged-{job.writer}").open("w") as log:
        for number in range(job.each):
            minor = MINORS[(job.writer + number) % len(MINORS)]
            cuda = CUDAS[(job.writer * job.each + number) % len(CUDAS)]
            change = farm.change(f"{minor}.{job.writer}", cuda=cuda, build=number)
            started = time.monotonic()
            answer = publish([change], farm.target(store=store))
            took = time.monotonic() - started
            if not isinstance(answer, Committed) or answer.unfinished is not None:
                raise SystemExit(f"writer {job.writer}: {answer}")
            log.write(json.dumps([change.entry.id, answer.publish, answer.gen, took]) + "\n")
            log.flush()
            os.fsync(log.fileno())


def acknowledged(root: Path) -> Iterator[tuple[str, str, int, float]]:
    """Yield entry id, publish id, generation and seconds of each noted answer."""
    for path in sorted(root.glob("acknowledged-*")):
        for line in path.read_text().splitlines():
            entry, publish_id, gen, took = json.loads(line)
            yield entry, publish_id, gen, took


def violations(walk: Walk, answers: list[tuple[str, str, int, float]]) -> list[str]:
    """Return what was promised and is not so."""
    found = walk.violations()
    known = {entry["id"] for entry in walk.entries}
    for entry, publish_id, gen, _ in answers:
        holding = walk.publishes.get(publish_id, [])
        if holding != [gen]:
            found.append(f"{entry}: acknowledged in {gen}, stands in {holding}")
        if entry not in known:
            found.append(f"{entry}: acknowledged, and not in the newest state")
    extra = walk.publishes.keys() - {publish_id for _, publish_id, _, _ in answers}
    return [*found, *(f"{name}: nobody was told of it" for name in sorted(extra))]


def fsync_ms(root: Path) -> float:
    """Return the median of 50 small durable writes, in milliseconds."""
    times = []
    for _ in range(50):
        started = time.monotonic()
        with (root / "yardstick").open("w") as file:
            file.write("x" * 1000)
            file.flush()
            os.fsync(file.fileno())
        times.append(1000 * (time.monotonic() - started))
    return statistics.median(times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a run took: of time, of the processors by its writers, and by everything else."""

    seconds: float
    own_s: float
    others_s: float


def busy_s() -> tuple[float, float]:
    """Return the processor time of all ended children, and of the whole machine."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, soft = (int(ticks) for ticks in fields[:7])
    whole = (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
    return children.ru_utime + children.ru_stime, whole


def run(job: Job, writers: int) -> Taken:
    """Let all writers run to their end; return what that took."""
    jobs = [
        Job(job.root, job.location, job.environment, number, job.each) for number in range(writers)
    ]
    start = SPAWN.Barrier(writers + 1)
    own, whole = busy_s()
    processes = [SPAWN.Process(target=work, args=(job, start)) for job in jobs]
    for process in processes:
        process.start()
    start.wait()
    started = time.monotonic()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a writer failed")
    seconds = time.monotonic() - started
    own, whole = (after - before for after, before in zip(busy_s(), (own, whole), strict=True))
    return Taken(seconds=seconds, own_s=own, others_s=whole - own)


def main() -> None:
    """Print the figures, and exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--store", choices=["directory", "azurite"], default="directory")
    parser.add_argument("--signed", action="store_true", help="let each sign head and image")
    parser.add_argument("--where", type=Path, default=Path.home() / ".cache")
    options = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.where)))
        location, environment = str(root / "store"), dict[str, str]()
        if options.store == "azurite":
            blobs = root / "azurite"
            connection = provision.start_azurite(settings.cache_directory(os.environ), blobs)
            stack.callback(provision.stop_azurite, blobs)
            location, environment = "azure:bench", {"AZURE_STORAGE_CONNECTION_STRING": connection}
        job = Job(root, location, environment, 0, options.each)
        if options.signed:
            (root / KEY).write_bytes(private_pem())
        yardstick = fsync_ms(root)
        taken = run(job, options.writers)
        answers = list(acknowledged(root))
        walk = Walk.of(Farm(root), open_store(location, environment))
        wrong = violations(walk, answers)
        report(options, taken, sorted(took for *_, took in answers), yardstick)
    for line in wrong[:20]:
        print("VIOLATION", line)
    print(f"{len(answers)} acknowledged, {len(wrong)} violations")
    sys.exit(1 if wrong else 0)


def report(options: Any, taken: Taken, times: list[float], yardstick: float) -> None:
    rate = len(times) / taken.seconds
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(f"{options.store}: {options.writers} writers x {options.each}")
    print(f"  {rate:.1f} publishes/s, p50 {p50:.2f} s, p99 {p99:.2f} s, longest {times[-1]:.2f} s")
    print(f"  one small fsync {yardstick:.2f} ms: a publish costs {1000 / rate / yardstick:.0f} x")
    others = taken.others_s / taken.seconds
    print(f"  {1000 * taken.own_s / len(times):.0f} ms of a processor for each publish", end="")
    print(f"; something else kept {others:.1f} of {os.cpu_count()} processors busy")


if __name__ == "__main__":
    main()
