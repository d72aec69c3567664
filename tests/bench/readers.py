"""Readers beside writers: every state that is seen is a committed one, and none goes back.

    python -m tests.bench.readers --readers 20 --publishes 500

Four writers publish into a directory; readers poll it and read every entry of what they see. Each
notes the generations it saw with a hash of the entries; a checker compares that with the chain.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import curator
from curator.index import read_generation, read_groups
from curator.oci import canonical_json, sha256
from curator.store import DirectoryStore
from tests.bench.publish import SPAWN, Job, run
from tests.publishing import Farm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from curator.index import Entry

WRITERS = 4
PAUSE_S = 0.002


def told(entries: Iterable[Entry]) -> str:
    """Return the hash of what a state holds."""
    return sha256(canonical_json(sorted(entry.id for entry in entries)))


def read_on(root: Path, number: int) -> None:
    """Poll until `stop` stands there, and note each state that is new."""
    seen: list[tuple[int, str]] = []
    reads = 0
    with curator.open_index(root / "store", cache=None) as index:
        while True:
            is_last = (root / "stop").exists()
            if not index.refresh():
                time.sleep(PAUSE_S)
            reads += 1
            if not seen or seen[-1][0] != index.generation:
                seen.append((index.generation, told(index.entries())))
            if is_last:
                break
    (root / f"seen-{number}").write_text(json.dumps({"reads": reads, "seen": seen}))


def faults(root: Path) -> tuple[list[str], int, int]:
    """Return what readers saw that never was, and how many reads and states there were."""
    store = DirectoryStore(root / "store")
    truth: dict[int, str] = {}
    wrong: list[str] = []
    reads = states = 0
    for path in sorted(root.glob("seen-*")):
        noted = json.loads(path.read_bytes())
        reads += noted["reads"]
        states += len(noted["seen"])
        numbers = [number for number, _ in noted["seen"]]
        if numbers != sorted(set(numbers)):
            wrong.append(f"{path.name} went back: {numbers}")
        for number, what in noted["seen"]:
            if number not in truth:
                tip = read_generation(store, number)
                assert tip
                truth[number] = told(read_groups(store, tip).entries)
            if truth[number] != what:
                wrong.append(f"{path.name} saw another generation {number}")
    return wrong, reads, states


def watched(root: Path, readers: int, publishes: int) -> tuple[list[str], int, int]:
    """Let readers poll while four writers publish; return faults, reads and states as `faults`."""
    farm = Farm(root)
    farm.publish(farm.change("13.0.0"))
    processes = [SPAWN.Process(target=read_on, args=(root, number)) for number in range(readers)]
    for process in processes:
        process.start()
    run(Job(root, str(root / "store"), {}, 0, publishes // WRITERS), writers=WRITERS)
    (root / "stop").touch()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a reader failed")
    return faults(root)


def main() -> None:
    """Print the figures, and exit with 1 if anybody saw what never was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--publishes", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.home() / ".cache") as directory:
        started = time.monotonic()
        wrong, reads, states = watched(Path(directory), options.readers, options.publishes)
        seconds = time.monotonic() - started
    print(f"{options.readers} readers, {options.publishes} publishes in {seconds:.0f} s")
    print(f"  {reads} reads, {reads / seconds:.0f} a second; {states} states seen")
    for line in wrong[:20]:
        print("FAULT", line)
    print(f"{len(wrong)} faults")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
