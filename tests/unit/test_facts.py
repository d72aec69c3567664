"""The facts in `matrix/` against the committed locks, which hold what the package index says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from curator.lockfile import Lock, parse_lock

MATRIX = Path(__file__).parents[2] / "matrix"
RELEASES: dict[str, dict[str, str]] = yaml.safe_load((MATRIX / "cuda.yaml").read_text())["releases"]
FRAMEWORKS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted(MATRIX.glob("*.yaml"))
    if path.stem not in {"cuda", "bases", "farm"}
}
LOCKS: dict[str, Lock] = {
    path.stem: parse_lock(path.read_text(), file=path.name)
    for path in sorted(MATRIX.glob("locks/*/*.txt"))
}


def _release(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split("."))


def _holds_toolkit(lock: Lock) -> bool:
    return lock.version_of("cuda-toolkit") is not None


def test_there_are_the_cells_that_the_farm_promises() -> None:
    assert len(LOCKS) >= 60
    assert {name.split("-")[0] for name in LOCKS} >= {"cupy", "jax", "numba", "tensorflow"}


def test_the_runtime_of_each_release_is_the_one_that_locks_of_its_toolkit_hold() -> None:
    wrong = [
        f"{name}: {runtime.version}, cuda.yaml says {RELEASES[lock.cuda or '']['runtime']}"
        for name, lock in LOCKS.items()
        if _holds_toolkit(lock)
        for runtime in lock.runtimes
        if runtime.version != RELEASES[lock.cuda or ""]["runtime"]
    ]
    assert wrong == []


def test_the_toolkit_of_each_release_is_the_one_that_locks_hold() -> None:
    wrong = [
        f"{name}: {found}"
        for name, lock in LOCKS.items()
        if (found := lock.version_of("cuda-toolkit")) is not None
        and _release(found)[:3] != _release(RELEASES[lock.cuda or ""]["toolkit"])[:3]
        and any("{cuda_toolkit}" in line for line in _file(name)["requirements"])
    ]
    assert wrong == []


def _file(name: str) -> dict[str, Any]:
    return next(file for stem, file in FRAMEWORKS.items() if name.startswith(f"{stem}-"))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_one_cuda_and_it_is_the_one_it_is_named_for(name: str) -> None:
    lock = LOCKS[name]
    named = re.search(r"-cuda([\d.]+)-", name)
    assert named
    assert (lock.cell, lock.cuda) == (name, named[1])
    suffixes = {found[1] for w in lock.wheels if (found := re.search(r"-cu(\d+)$", w.name))}
    assert suffixes <= {named[1].partition(".")[0]}


def test_a_release_is_a_number_with_a_toolkit_a_floor_and_a_source() -> None:
    for name, row in RELEASES.items():
        assert row["source"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["read"])
        assert ("toolkit" in row) == ("runtime" in row)
        if "toolkit" in row:
            assert _release(row["toolkit"])[:2] == _release(row["runtime"])[:2] == _release(name)


def test_releases_of_one_major_have_one_driver_floor_and_it_rises() -> None:
    floors: dict[int, set[str]] = {}
    for name, row in RELEASES.items():
        floors.setdefault(_release(name)[0], set()).add(row["driver_floor"])
    assert all(len(values) == 1 for values in floors.values())
    ordered = [_release(floors[major].pop()) for major in sorted(floors)]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_combination_is_locked_or_rejected_never_both(framework: str) -> None:
    path = MATRIX / "locks" / framework / "rejected.json"
    rejected = json.loads(path.read_text()) if path.exists() else {}
    assert not set(rejected) & set(LOCKS)
