"""What one publish and one cold read cost, with 1,000, 10,000 and 100,000 entries in the index.

    python -m tests.bench.scale [--sizes 1000,10000,100000]

The synthetic farm grows as a real one does: more frameworks, minors and CUDA versions, about 50
entries in each shard, each of a real entry's size. Figures are medians of 20 publishes; ratios are
to the smallest farm of the same run.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import curator
from curator.index import (
    Coverage,
    Entry,
    Index,
    Sm,
    SuiteResult,
    commit_documents,
    entry_id,
    generation_path,
    group_path,
    head_document,
    head_of,
    read_index,
    shard_path,
)
from curator.oci import canonical_json, sha256
from curator.policy import admitted, floating_tags
from curator.publish import Committed, publish
from curator.store import DirectoryStore
from tests.publishing import NOW, PLACE, Farm, FusedStore, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPAWN = multiprocessing.get_context("spawn")
CUDAS = ("11.8", "12.1", "12.4", "12.6", "12.8", "12.9", "13.0", "13.1")
PER_SHARD = 50
PER_COMMIT = 2000
PUBLISHES = 20
UNITS = {"commit": "ms", "whole": "ms", "kilobytes": "kB", "rss": "MiB", "reader rss": "MiB"}
FRAMEWORKS = ("cupy", "jax", "numba-cuda", "pytorch", "tensorflow")
SMS = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


@dataclass
class Timed(FusedStore):
    """A store that counts what is written, and notes when the commit landed."""

    committed_at: float = 0.0
    written: int = 0

    def add(self, path: str, data: bytes) -> None:
        self.written += len(data)
        super().add(path, data)
        if path.startswith("v1/gen/"):
            self.committed_at = time.monotonic()

    def replace(self, path: str, data: bytes, expected_etag: str | None) -> str:
        self.written += len(data)
        return super().replace(path, data, expected_etag)


def full(entry: Entry, framework: str, python: str) -> Entry:
    """Return an entry with all that a tested image has: three hosts, kernels, coverage."""
    stack = entry.stack.model_copy(update={"framework": framework, "python": python})
    cell = f"{framework}-{stack.version}-cuda{stack.cuda}-py{python}"
    tests = tuple(
        SuiteResult(
            suite="gpu",
            verdict="pass",
            evidence=sha256(f"{entry.id} {sm}".encode()),
            at=NOW,
            probe="0" * 64,
            gpu=f"NVIDIA GPU of {sm}",
            sm=sm,
            driver="580.95.05",
            speed={"matmul_fp16_gflops": 312_000, "matmul_fp32_gflops": 19_500, "copy_mb_s": 10**6},
        )
        for sm in ("7.5", "8.0", "9.0")
    )
    groups = [
        {
            "answer": "tested",
            "sm": [test.sm],
            "drivers": [[580, 580]],
            "tests": [{"evidence": test.evidence, "sm": test.sm, "driver": test.driver, "at": NOW}],
        }
        for test in tests
    ]
    rest = {"answer": "inferred", "sm": list(SMS), "drivers": [[525, 580]], "rules": ["family"]}
    document = {"probe": "0" * 64, "max_age_days": 90, "groups": [*groups, rest]}
    return entry.model_copy(
        update={
            "id": entry_id(cell, entry.recipe),
            "cell": cell,
            "stack": stack,
            "tests": (*entry.tests, *tests),
            "sm": Sm(cubin=SMS, ptx=("12.0",), source="read from the binaries"),
            "coverage": Coverage.model_validate_json(canonical_json(document)),
            "published": NOW,
        }
    )


def entries(count: int) -> Iterator[Entry]:
    """Yield a farm's entries, shard by shard."""
    for number in itertools.count():
        group, cuda = divmod(number, len(CUDAS))
        minor, framework = divmod(group, len(FRAMEWORKS))
        for build in range(PER_SHARD):
            if count == 0:
                return
            count -= 1
            patch, python = build % 5, f"3.{10 + build // 5 % 5}"
            entry, _ = reported(f"14.{minor}.{patch}", cuda=CUDAS[cuda], build=number * 100 + build)
            yield admitted(full(entry, FRAMEWORKS[framework], python))


def fill(root: Path, count: int) -> None:
    """Write a store of this many entries, as publishes would have left it."""
    store = DirectoryStore(root / "store")
    before = Index()
    for batch in _batched(entries(count)):
        after = before.merge(batch)
        names = {name.rpartition("/")[0] for name in after.shards.keys() - before.shards.keys()}
        after = after.point({name: floating_tags(after.group(name)) for name in names})
        made = commit_documents(before, after, store="bench", publish="0" * 64, now=NOW)
        for document in (*made.named, made.generation):
            store.add(document.path, document.data)
        # What was written stays written: the next batch begins other groups.
        before = Index(tip=made.tip)
    head = head_document(head_of(made.tip, NOW))
    store.replace(head.path, head.data, None)
    config = {"spec": 1, "store": "bench", "registry": str(PLACE)}
    store.replace("v1/config.json", canonical_json(config), None)
    brought = {"gen": made.tip.generation.number, "sha256": made.tip.sha256}
    marker = {"spec": 1, "registry": str(PLACE), **brought}
    store.replace("v1/projected.json", canonical_json(marker), None)


def _batched(items: Iterator[Entry]) -> Iterator[tuple[Entry, ...]]:
    while batch := tuple(itertools.islice(items, PER_COMMIT)):
        yield batch


def publishes(root: Path, queue: multiprocessing.Queue[dict[str, float]]) -> None:
    """Publish new images into the first group, and tell what each cost."""
    farm = Farm(root)
    commits, wholes, written = [], [], []
    for number in range(PUBLISHES + 2):
        change = farm.change("14.0.9", cuda=CUDAS[number % len(CUDAS)], build=1000 + number)
        store = Timed(farm.documents, farm.fuse)
        started = time.monotonic()
        answer = publish([change], farm.target(store=store))
        ended = time.monotonic()
        assert isinstance(answer, Committed), answer
        assert answer.unfinished is None, answer.unfinished
        if number >= 2:  # the first ones write what is written once
            commits.append(store.committed_at - started)
            wholes.append(ended - started)
            written.append(store.written)
    queue.put(
        {
            "commit": 1000 * statistics.median(commits),
            "whole": 1000 * statistics.median(wholes),
            "kilobytes": statistics.median(written) / 1000,
            "rss": rss(),
        }
    )


def reads(root: Path, queue: multiprocessing.Queue[dict[str, float]]) -> None:
    """Read one shard's way, and tell the memory that it took."""
    with curator.open_index(root / "store", cache=None) as index:
        found = index.entries(framework="cupy", version="14.0", cuda="12.9")
    assert found
    queue.put({"reader rss": rss()})


def rss() -> float:
    """Return the largest memory this process had, in MiB."""
    # Not `ru_maxrss`, which counts what the parent had when it started this process.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def told(work: Callable[..., None], root: Path) -> dict[str, float]:
    """Return what a process of its own tells."""
    queue: multiprocessing.Queue[dict[str, float]] = SPAWN.Queue()
    process = SPAWN.Process(target=work, args=(root, queue))
    process.start()
    answer = queue.get()
    process.join()
    return answer


def cold_read(root: Path) -> dict[str, tuple[float, float]]:
    """Return kB of a cold read, plain and compressed: of one shard, and of one CUDA's minors."""
    store = DirectoryStore(root / "store")

    def size(path: str) -> tuple[int, int]:
        blob = store.read(path)
        assert blob
        return len(blob.data), len(gzip.compress(blob.data))

    head = json.loads((root / "store/v1/head.json").read_bytes())
    above = [size("v1/head.json"), size("v1/config.json"), size(generation_path(head["gen"]))]
    generation = json.loads((root / "store" / head["path"]).read_bytes())
    one: list[tuple[int, int]] = []
    every: list[tuple[int, int]] = []
    names = [name for name in generation["groups"] if name.startswith("cupy/")]
    for number, name in enumerate(sorted(names)):
        group = size(group_path(generation["groups"][name]["sha256"]))
        every.append(group)
        path = root / "store" / group_path(generation["groups"][name]["sha256"])
        for key, link in json.loads(path.read_bytes())["shards"].items():
            if key.endswith("/12.9"):
                shard = size(shard_path(link["sha256"]))
                every.append(shard)
                if number == 0:
                    one += [group, shard]
    return {
        "one shard": _sum([*above, *one]),
        f"one framework and CUDA, {len(names)} minors": _sum([*above, *every]),
    }


def _sum(sizes: list[tuple[int, int]]) -> tuple[float, float]:
    return sum(plain for plain, _ in sizes) / 1000, sum(packed for _, packed in sizes) / 1000


def main() -> None:
    """Print the figures of each size, and exit with 1 if a large farm costs too much."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="1000,10000,100000")
    sizes = [int(text) for text in parser.parse_args().sizes.split(",")]
    first: dict[str, float] = {}
    worst = 0.0
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as directory:
            root = Path(directory)
            started = time.monotonic()
            fill(root, count)
            print(f"{count} entries, written in {time.monotonic() - started:.0f} s")
            costs = told(publishes, root) | told(reads, root)
            first = first or costs
            for name, unit in UNITS.items():
                ratio = costs[name] / first[name]
                print(f"  {name:<10} {costs[name]:9.1f} {unit}  {ratio:.2f} x")
                if name in {"commit", "whole"}:
                    worst = max(worst, ratio)
            for what, (plain, packed) in cold_read(root).items():
                print(f"  cold read of {what}: {plain:.0f} kB, {packed:.0f} kB compressed")
            found = read_index(DirectoryStore(root / "store"), {"cupy/14.0"})
            print(f"  {len(found.entries)} entries in the group that was published to")
    print(f"a publish costs at most {worst:.2f} x what it costs at {sizes[0]} (wanted: 1.5)")
    sys.exit(1 if worst > 1.5 else 0)


if __name__ == "__main__":
    main()
