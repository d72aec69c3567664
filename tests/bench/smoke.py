"""What a test costs over the container that it needs anyway, for each framework.

    python -m tests.bench.smoke [CELL ...]

Of each published cell's image (all that this machine's index has, unless some are named): the
median wall seconds of `docker run IMAGE python3 -c pass`, of the whole probe through the docker
runner in the same minute, their ratio, and the seconds of each check inside.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from curator import matrix, provision, settings
from curator.host import host_facts
from curator.index import read_index
from curator.runner import DockerRunner
from curator.settings import Place
from curator.smoke import Probes, Subject, judge, run_program
from curator.store import DirectoryStore
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from curator.index import Entry
    from curator.oci import Reference
    from curator.smoke import SmokeReport

RUNS = 3
NONCE = "bench"


def seconds(work: Callable[[], object]) -> float:
    """Return the median wall seconds of several runs, after one that warms the disk's cache."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.monotonic()
        work()
        times.append(time.monotonic() - start)
    return statistics.median(times)


class Bench:
    """This machine's engine, its registry and the farm."""

    def __init__(self) -> None:
        cache = settings.cache_directory(os.environ)
        status = provision.up(cache)
        assert status.engine is not None
        assert status.registry is not None
        tree = settings.read_tree(ROOT)
        self.docker = list(status.engine.command)
        self.place, self.host = Place.parse(status.registry), host_facts()
        self.farm, self.probes = matrix.load(tree), Probes(tree)
        self.runner = DockerRunner(status.engine)
        self.entries = read_index(DirectoryStore(cache / "store")).entries
        self.cells = {cell.id: cell for cell in self.farm.cells}

    def test(self, entry: Entry, image: Reference) -> SmokeReport:
        """Run the whole probe, as a run does."""
        probe = self.probes.assemble(self.cells[entry.cell], self.farm.locks[entry.cell])
        text = run_program(probe, NONCE, no_gpu="" if self.host.gpus else "this host has no GPU")
        run = self.runner.run(image, text, gpus=min(len(self.host.gpus), 1), timeout_s=900)
        subject = Subject(image=entry.digest)
        return judge(probe, run, nonce=NONCE, subject=subject, host=self.host)

    def line(self, entry: Entry) -> str:
        """Return the figures of one image, which is pulled before and removed afterwards."""
        image = self.place.repository(entry.repository).with_digest(entry.digest)
        subprocess.run([*self.docker, "pull", "-q", str(image)], check=True, capture_output=True)
        run = [*self.docker, "run", "--rm", "--network", "none", str(image)]
        bare = seconds(lambda: subprocess.run([*run, "python3", "-c", "pass"], check=True))
        whole = seconds(lambda: self.test(entry, image))
        report = self.test(entry, image)
        subprocess.run(
            [*self.docker, "image", "rm", "-f", str(image)], check=True, capture_output=True
        )
        checks = ", ".join(f"{check.name} {check.ms / 1000:.1f}" for check in report.checks)
        return (
            f"{entry.cell}: pass {bare:.2f} s, probe {whole:.1f} s ({whole / bare:.0f} x)\n"
            f"    contents {report.contents}, gpu {report.gpu}; seconds: {checks}"
        )


def main() -> None:
    """Print the figures of each image."""
    bench = Bench()
    for entry in bench.entries:
        if entry.cell in bench.cells and (not sys.argv[1:] or entry.cell in sys.argv[1:]):
            print(bench.line(entry), flush=True)


if __name__ == "__main__":
    main()
