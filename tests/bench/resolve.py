"""What `curator resolve` costs against 10,000 images: the whole process, and inside of it.

    python -m tests.bench.resolve [--images 10000] [--runs 15]

The images are synthetic: five frameworks, 32 labels, each image tested on three GPUs. Ratios are to
`python -c 0` (the process) and to reading the catalogue's JSON with nothing else (inside).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from curator.facts import facts
from curator.reader import read_catalogue
from curator.resolve import Wishes, resolve
from tests.images import (
    PYTORCH_124,
    PYTORCH_128,
    PYTORCH_130,
    host,
    image,
    label,
    ran,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.resolve import Image

FRAMEWORKS = ("cupy", "jax", "numba-cuda", "pytorch", "tensorflow")
CUDAS = ("11.8", "12.1", "12.4", "12.6", "12.8", "12.9", "13.0", "13.1")
KERNELS = ((PYTORCH_124, ()), (PYTORCH_128, ()), (PYTORCH_130, ("12.0",)), (PYTORCH_128, ("9.0",)))
QUESTIONS = {
    "one framework": (host("535.104.05", "A100"), Wishes(framework="pytorch")),
    "any framework": (host("535.104.05", "A100"), Wishes()),
    "two GPUs": (host("580.95.05", "A100", "V100"), Wishes(framework="pytorch")),
    "fastest": (host("580.95.05", "H200"), Wishes(framework="pytorch", prefer="fastest")),
    "nothing fits": (host("470.256.02", "RTX 5090"), Wishes()),
}


def synthetic(count: int) -> list[Image]:
    """Return images as a farm of many years would have them."""
    rng = random.Random(7)  # noqa: S311 - the same ones each time
    labels = [label(cuda, cubin, ptx) for cuda in CUDAS for cubin, ptx in KERNELS]
    return [
        image(
            rng.choice(FRAMEWORKS),
            f"{number // 2000}.{number // 40 % 50}.{number % 3}",
            rng.choice(labels),
            id=f"image-{number}",
            tests=(ran("H200", "580.1.1", rate=number), ran("A100", "550.1.1"), ran("T4", "535.1")),
        )
        for number in range(count)
    ]


def median_ms(do: Callable[[], object], runs: int) -> float:
    """Return the median of some runs, in milliseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        do()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def command(*arguments: str, root: Path) -> Callable[[], object]:
    """Return what runs a command with a cache of its own."""
    environment = {**os.environ, "CURATOR_CACHE": str(root / "cache")}

    def run() -> None:
        subprocess.run(arguments, env=environment, cwd=root, capture_output=True, check=True)

    return run


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        place = written(root / "index", synthetic(given.images))
        curator = str(Path(sys.executable).with_name("curator"))
        asked = ("--index", place, "--driver", "535", "--gpu", "A100", "--framework", "pytorch")
        resolved = command(curator, "resolve", *asked, root=root)
        cold = median_ms(resolved, 1)
        python = median_ms(command(sys.executable, "-c", "0", root=root), given.runs)
        print(f"{given.images} images; medians of {given.runs} runs")
        print(f"  python -c 0             {python:8.1f} ms")
        print(f"  first read of the index {cold:8.1f} ms")
        for told, more in (("resolve", ()), ("resolve --offline", ("--offline",))):
            took = median_ms(command(curator, "resolve", *asked, *more, root=root), given.runs)
            print(f"  {told:<23} {took:8.1f} ms  {took / python:.1f} x python -c 0")
        known = read_catalogue(place, cache=root / "cache2")
        parsed = median_ms(lambda: json.loads(known.data), given.runs)
        print(f"  the catalogue is {len(known.data) / 1e6:.1f} MB; json.loads {parsed:.1f} ms")
        for told, (where, wishes) in QUESTIONS.items():
            took = median_ms(lambda: resolve(known, where, wishes, facts(), 20), given.runs)  # noqa: B023
            print(f"  inside: {told:<15} {took:8.2f} ms  {took / parsed:.2f} x json.loads")


if __name__ == "__main__":
    main()
