"""How long the smallest set of tests takes to find, beside a greedy peer on the same images.

    python -m tests.bench.coverage [IMAGES [HOSTS]]

Prints for each way: seconds, peak memory and how many tests it asks for. Every image is a problem
of its own here: the labels differ, and so does what was tested.
"""

from __future__ import annotations

import resource
import sys
import time
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from curator.compat import moment_of
from curator.coverage import Grid, Host, Image, Label, Planner, coverage, smallest
from curator.facts import facts
from curator.index import SuiteResult
from curator.oci import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOW, DAYS = "2026-11-23T10:00:00Z", 90
PROBE = "0" * 64
CUDA = [*((f"11.{n}", "450.80.02") for n in (7, 8)), *((f"12.{n}", "525.60.13") for n in range(10))]
TARGETS = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


def images(count: int, hosts: Sequence[Host]) -> list[Image]:
    """Return images of many labels, two thirds of them with a few tests; no randomness."""
    made = []
    for number in range(count):
        cuda, floor = CUDA[number % len(CUDA)]
        chosen = tuple(t for bit, t in enumerate(TARGETS) if (number * 7919 + 1) >> bit & 1)
        label = Label(cuda=cuda, driver_floor=floor, cubin=chosen, ptx=chosen[-1:])
        tests = tuple(
            _test(hosts[(number * 31 + turn * 7) % len(hosts)], number + turn)
            for turn in range(number % 3)
        )
        made.append(Image(name=f"image-{number}", probe=PROBE, label=label, tests=tests))
    return made


def _test(host: Host, turn: int) -> SuiteResult:
    return SuiteResult(
        suite="gpu",
        verdict="fail" if turn % 11 == 0 else "pass",
        evidence=sha256(str(turn).encode()),
        at=f"2026-{8 + turn % 4:02}-20T10:00:00Z",
        probe=PROBE,
        sm=host.sm,
        driver=f"{host.driver}.54.15",
    )


def greedy(sets: Sequence[int]) -> tuple[int, ...]:
    """Return sets chosen by what each adds most: the peer."""
    wanted, chosen = reduce(or_, sets, 0), []
    while wanted:
        best = max(range(len(sets)), key=lambda index: (sets[index] & wanted).bit_count())
        chosen.append(best)
        wanted &= ~sets[best]
    return tuple(chosen)


def _line(name: str, start: float, result: object) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<28} {time.monotonic() - start:6.2f} s  {peak:5.0f} MiB  {result}")


def main() -> None:
    """Print the figures."""
    count, width = ([int(text) for text in sys.argv[1:]] + [10_000, 20][len(sys.argv) - 1 :])[:2]
    grid = Grid(facts().gpus)
    pairs = [
        Host(sm=capability.sm, driver=branch.number)
        for branch in grid.branches
        for capability in grid.capabilities
        if capability.has(branch.number)
    ]
    hosts = [pairs[(number * 37) % len(pairs)] for number in range(width)]
    made = images(count, hosts)
    now, age = moment_of(NOW), timedelta(days=DAYS)
    assert now is not None
    start = time.monotonic()
    plan = Planner(grid, hosts).plan(made, now, age)
    _line(f"cover, {count} x {width}", start, f"{len(plan.tests)} tests")
    planner = Planner(grid, hosts)
    sets = [planner.sets(planner.problem(image, now, age))[1] for image in made]
    ways: tuple[Callable[[Sequence[int]], tuple[int, ...]], ...] = (smallest, greedy)
    for way in ways:
        start = time.monotonic()
        total = sum(len(way(found)) for found in sets)
        _line(f"choice alone: {way.__name__}", start, f"{total} tests")
    start = time.monotonic()
    total = sum(len(coverage(i, grid, now=NOW, max_age_days=DAYS).groups) for i in made[:1000])
    _line("coverage of 1000 images", start, f"{total} groups")


if __name__ == "__main__":
    main()
