"""What a registry stores for six images: one layer per wheel against one RUN per image.

    python -m tests.bench.layers [CUPY-VERSION NUMBA-VERSION CUDA CUDA]

The six are CuPy, Numba-CUDA, and both together, each for two CUDA releases, from this repository's
locks on its own base. Builds are real and take minutes; bytes are those of distinct blobs in the
exported layouts, compressed, base included. Prints megabytes, seconds and the ratio.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from curator import matrix, provision, settings
from curator.engine import BuildxEngine, build_secrets
from curator.recipe import Layer, Recipe, Templates, base_key, layers
from curator.registry import HttpRegistry
from curator.settings import Place
from tests.conftest import PLATFORM, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from curator.lockfile import Lock
    from curator.oci import Reference

DEFAULTS = ("14.2.0", "0.30.4", "12.9", "13.0")
PYTHON = "3.11"


def locks_of(arguments: tuple[str, ...]) -> list[tuple[str, Lock]]:
    """Return the six locks: what both images hold is the union of their lines."""
    cupy, numba, *releases = arguments
    found = matrix.load(settings.read_tree(ROOT)).locks
    chosen = []
    for cuda in releases:
        one = found[f"cupy-{cupy}-cuda{cuda}-py{PYTHON}"]
        two = found[f"numba-cuda-{numba}-cuda{cuda}-py{PYTHON}"]
        union = {wheel.name: wheel for wheel in (*one.wheels, *two.wheels)}
        both = replace(one, wheels=tuple(sorted(union.values(), key=lambda wheel: wheel.name)))
        chosen += [(f"cupy-{cuda}", one), (f"numba-{cuda}", two), (f"both-{cuda}", both)]
    return chosen


class Bench:
    """An engine, a base in a registry, and a place for layouts."""

    def __init__(self, work: Path) -> None:
        self.work = work
        status = provision.up(settings.cache_directory(os.environ))
        assert status.engine is not None
        assert status.registry is not None
        self.engine = BuildxEngine(address=status.engine)
        self.place = Place.parse(status.registry)
        self.tree = settings.read_tree(ROOT)
        self.templates = Templates(self.tree)
        self.farm = matrix.load(self.tree)
        self.base = self._base()

    def _base(self) -> Reference:
        base = self.farm.bases["debian-12"]
        key = base_key(base, self.farm.base_locks["debian-12", str(PLATFORM)])
        target = self.place.repository("base/debian-12").with_tag(key)
        if HttpRegistry().resolve(target) is None:
            layout = self.work / "base"
            cache = settings.cache_directory(os.environ)
            provision.make_base(base, PLATFORM, layout, cache=cache)
            HttpRegistry().push(layout, target)
        found = HttpRegistry().resolve(target)
        assert found is not None
        return target.with_digest(found.digest)

    def build(self, name: str, parts: tuple[Layer, ...]) -> tuple[dict[str, int], float]:
        """Build one image and return its blobs (digest -> bytes) and the seconds it took."""
        values = {"layers": parts, "env": [], "labels": []}
        recipe = Recipe(
            cell=name,
            framework="bench",
            dockerfile=self.templates.render("wheels.j2", values),
            context=(*((part.file, part.text) for part in parts), ("constraints.txt", "")),
            base="debian-12",
            base_key="",
            platform=PLATFORM,
            epoch=self.farm.farm.epoch,
            key="0" * 64,
        )
        layout = self.work / name
        start = time.monotonic()
        self.engine.build(
            recipe,
            base=self.base,
            layout=layout,
            log=self.work / f"{name}.log",
            secrets=build_secrets(os.environ, self.work / "secrets"),
            timeout_s=3600,
            cancelled=threading.Event(),
        )
        seconds = time.monotonic() - start
        blobs = {path.name: path.stat().st_size for path in (layout / "blobs/sha256").iterdir()}
        shutil.rmtree(layout)
        return blobs, seconds


def one_run(lock: Lock) -> tuple[Layer, ...]:
    """Return the peer's layout: everything in one layer."""
    lines = json.dumps([wheel.line for wheel in lock.wheels])
    name = f"all-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"
    return (Layer(name=name, wheels=lock.wheels),)


def main() -> None:
    """Build twelve images and print the figures."""
    arguments = tuple(sys.argv[1:]) or DEFAULTS
    work = settings.cache_directory(os.environ) / "bench"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    bench = Bench(work)
    totals = {}
    for title, split in (("one RUN per image", False), ("one layer per wheel", True)):
        stored: dict[str, int] = {}
        spent = 0.0
        for name, lock in locks_of(arguments):
            parts = layers(lock, bench.farm.farm.alone_bytes) if split else one_run(lock)
            blobs, seconds = bench.build(f"{name}-{'split' if split else 'whole'}", parts)
            stored |= blobs
            spent += seconds
            size = sum(blobs.values()) / 1e6
            told = f"{len(parts):>3} layers {size:8.0f} MB {seconds:6.0f} s"
            print(f"  {name:<12} {told}", flush=True)
        totals[title] = sum(stored.values())
        print(f"{title}: {totals[title] / 1e6:.0f} MB stored, {spent:.0f} s", flush=True)
    whole, split_bytes = totals.values()
    print(f"ratio: {100 * split_bytes / whole:.1f} %")
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
