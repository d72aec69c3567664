"""Made-up locks, cells and farms of one cell, for recipes that need no matrix."""

from __future__ import annotations

from dataclasses import replace

from curator import matrix
from curator.lockfile import BaseLock, Lock, LockedWheel
from curator.matrix import Base, Cell, Matrix
from curator.oci import Platform, sha256
from tests.trees import tiny_tree

MIB = 1024 * 1024
INSTALLER = "uv 0.13.9"
AMD64 = Platform.parse("linux/amd64")


def wheel(name: str, version: str = "1.0", size_mib: int = 1) -> LockedWheel:
    """Return a wheel whose hash is made of its name and version."""
    digest = sha256(f"{name} {version}".encode()).removeprefix("sha256:")
    return LockedWheel(name=name, version=version, sha256=digest, size_bytes=size_mib * MIB)


def lock_of(*wheels: LockedWheel) -> Lock:
    """Return a lock of these wheels, in a lock's order."""
    return Lock(
        cell="demo-1.0-cuda12.8-py3.11",
        python="3.11",
        platform="linux/amd64",
        cutoff="2026-11-22T00:00:00Z",
        uv="0.13.9",
        inputs=sha256(b"inputs"),
        wheels=tuple(sorted(wheels, key=lambda item: item.name)),
    )


SMALL_LOCK = lock_of(
    wheel("nvidia-cublas-cu12", "12.8.4.1", 500),
    wheel("nvidia-cuda-runtime-cu12", "12.8.90", 3),
    wheel("nvidia-nvtx-cu12", "12.8.90", 1),
    wheel("demo-pkg", "1.0", 800),
    wheel("packaging", "26.3", 1),
)


def cell_of(**changes: object) -> Cell:
    """Return a cell of the framework `demo`."""
    cell = Cell(
        id="demo-1.0-cuda12.8-py3.11",
        framework="demo",
        version="1.0",
        cuda="12.8",
        python="3.11",
        platform=AMD64,
        base="debian-12",
        recipe="wheels",
        package="demo-pkg",
        module="demo",
        requirements=("demo-pkg==1.0",),
        constrain=("nvidia-*",),
        env=(),
        sm_min=None,
        file="matrix/demo.yaml",
        line=5,
    )
    return replace(cell, **changes)  # type: ignore[arg-type]


def world(cell: Cell, lock: Lock) -> Matrix:
    """Return a farm of one cell, on a base that is only a name."""
    base = Base(
        name=cell.base,
        kind="mmdebstrap",
        suite="bookworm",
        python=cell.python,
        include=(),
        exclude_paths=(),
        epoch=1700000000,
        reference=None,
    )
    base_lock = BaseLock(
        name=cell.base,
        platform=str(cell.platform),
        packages=(),
        diff_id=sha256(b"root"),
        size_bytes=1,
    )
    return Matrix(
        cells=(cell,),
        rejected=(),
        bases={cell.base: base},
        cuda={},
        farm=replace(matrix.load(tiny_tree()).farm, alone_bytes=32 * MIB),
        locks={cell.id: lock},
        base_locks={(cell.base, str(cell.platform)): base_lock},
    )


def edited(*edits: tuple[str, str, str]) -> dict[str, str]:
    """Return the tiny farm with (file, old, new) replaced."""
    tree = tiny_tree()
    for file, old, new in edits:
        assert old in tree[file], f"{old!r} is not in {file}"
        tree[file] = tree[file].replace(old, new)
    return tree
