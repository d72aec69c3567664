"""How long a plan takes: this repository's matrix, and synthetic ones.

    python -m tests.bench.plan [CELLS ...]

Prints whole-process wall seconds and peak memory of `curator plan` here, beside a bare python's
start in the same run, and the seconds inside the process for matrices of as many cells as named.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

from curator import matrix
from curator.index import Index
from curator.plan import make_plan
from tests.conftest import ROOT
from tests.trees import synthetic_tree

RUNS = 5


def wall(command: list[str]) -> float:
    """Return the median wall seconds of a command."""
    times = []
    for _ in range(RUNS):
        start = time.monotonic()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times.append(time.monotonic() - start)
    return statistics.median(times)


def main() -> None:
    """Print the figures."""
    bare = wall([sys.executable, "-c", "pass"])
    whole = wall([sys.executable, "-c", "from curator.cli import main; main()", "plan"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    ratio = whole / bare
    print(f"bare python {bare:.2f} s; curator plan {whole:.2f} s ({ratio:.0f} x), {peak:.0f} MiB")
    for cells in [int(text) for text in sys.argv[1:]] or [1_000, 10_000]:
        tree = synthetic_tree(cells)
        start = time.monotonic()
        found = matrix.load(tree)
        loaded = time.monotonic()
        plan = make_plan(found, tree, Index(), ids=[c.id for c in found.cells], installer="uv")
        end = time.monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{len(plan.cells):>6} cells: load {loaded - start:.2f} s, plan {end - loaded:.2f} s,"
            f" peak {peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
