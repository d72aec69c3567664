"""Publishers killed at random instants, and at every store write and registry request there is.

    python -m tests.bench.deaths --kills 200 --seed 7

Against a real registry, with an index that is not signed and with one that is. After the random
kills, and after each of the others, an operator recovers and repairs; a checker then looks for
anything corrupt, lost, or tagged that no generation names.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

from curator import provision, settings
from curator.provision import _processes
from curator.publish import AlreadyCommitted, Committed, publish
from curator.settings import Place
from tests.deaths import Yard, died_at_request, died_at_write, killed_at_random

KINDS = {False: "", True: "-signed"}


def random_deaths(
    root: Path, registry: str, kills: int, seed: int, *, is_signed: bool = False
) -> list[str]:
    """Kill four concurrent publishers again and again; return what is wrong in the end."""
    name = f"random{KINDS[is_signed]}"
    yard = Yard.made(root / name, Place(registry=registry, prefix=name), is_signed=is_signed)
    started = time.monotonic()
    killed_at_random(yard, writers=4, kills=kills, seed=seed)
    answers = len(list(yard.acknowledged()))
    wrong = yard.mended()
    took = time.monotonic() - started
    print(
        f"{name}: {kills} SIGKILLs (seed {seed}): {answers} acknowledged, {len(wrong)} faults, "
        f"{took:.0f} s"
    )
    return wrong


def chosen_deaths(
    root: Path, registry: str, every: int = 1, *, is_signed: bool = False
) -> list[str]:
    """Kill one publish at every write and request, each in a new yard; return what is wrong."""
    wrong: list[str] = []
    for kind, after in (("write", False), ("request", False), ("request", True)):
        died = 0
        for number in itertools.count(0, every):
            name = f"{kind}-{int(after)}-{number}{KINDS[is_signed]}"
            place = Place(registry=registry, prefix=name)
            yard = Yard.made(root / name, place, is_signed=is_signed)
            change = yard.change("14.2.0", 1)
            if kind == "write":
                has_died = died_at_write(yard, change, number)
            else:
                has_died = died_at_request(yard, change, number, after=after)
            if not has_died:
                break
            died += 1
            wrong += [f"{name}: {fault}" for fault in yard.mended()]
            answer = publish([change], yard.target())
            if not isinstance(answer, Committed | AlreadyCommitted) or answer.unfinished:
                wrong.append(f"{name}: {answer}")
            wrong += [f"{name}, published again: {fault}" for fault in yard.mended()]
        when = ", after its effect" if after else ""
        what = f"{kind}{KINDS[is_signed]}{when}"
        print(f"killed at {died} instants of kind {what}: {len(wrong)} faults so far")
    return wrong


def main() -> None:
    """Print the figures, and exit with 1 on any fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    cache = settings.cache_directory(os.environ)
    provision.up(cache)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        root = Path(directory)
        registry = provision.start_registry(
            root / "registry", cache / "engine/tools", port=_processes.free_port()
        )
        try:
            wrong = []
            for is_signed in (False, True):
                kills, seed = options.kills // 2, options.seed + is_signed
                wrong += random_deaths(root, registry, kills, seed, is_signed=is_signed)
                wrong += chosen_deaths(root, registry, is_signed=is_signed)
        finally:
            provision.stop_registry(root / "registry")
    for line in wrong[:20]:
        print("FAULT", line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
