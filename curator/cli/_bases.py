"""Making bases for verbs: locking them, and locking again what a distribution has moved past."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from curator import provision
from curator.errors import RefusedError
from curator.farm import BaseMovedError, ensure_base
from curator.lockfile import ImageLock, dump_base
from curator.matrix import base_lock_path, bases, candidates, select
from curator.oci import Reference
from curator.plan import Action
from curator.registry import HttpRegistry

if TYPE_CHECKING:
    from curator.farm import Ports
    from curator.lockfile import BaseLock
    from curator.matrix import Base, Matrix, Tree
    from curator.oci import Platform
    from curator.plan import Plan


def lock_bases(tree: Tree, selectors: tuple[str, ...], cache: Path) -> dict[str, str | None]:
    """Make the bases that selectors choose (all without any) and return their lock files.

    Raises:
        HostError: this machine cannot make one of them.
    """
    known = bases(tree)
    chosen = select(known, selectors)
    wanted = {(cell.base, cell.platform) for cell in candidates(tree) if cell.base in chosen}
    files: dict[str, str | None] = {}
    for name, platform in sorted(wanted, key=str):
        lock = _lock(known[name], platform, cache)
        files[base_lock_path(name, str(platform))] = dump_base(lock)
    return files


def _lock(base: Base, platform: Platform, cache: Path) -> BaseLock | ImageLock:
    if base.reference is None:
        with tempfile.TemporaryDirectory(dir=_work(cache)) as directory:
            return provision.make_base(base, platform, Path(directory) / "layout", cache=cache)
    reference = Reference.parse(base.reference)
    found = HttpRegistry().resolve(reference)
    if found is None:
        raise RefusedError(f"base {base.name}: {reference} is not in its registry")
    return ImageLock(
        name=base.name,
        platform=str(platform),
        reference=base.reference,
        digest=found.digest,
    )


def _work(cache: Path) -> Path:
    directory = cache / "work"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def moved_bases(plan: Plan, matrix: Matrix, ports: Ports) -> dict[str, str | None]:
    """Make what bases a plan's builds need, and return new lock files for those that moved."""
    wanted = {
        (item.recipe.base, item.recipe.platform)
        for item in plan.work
        if item.action is Action.BUILD
    }
    files: dict[str, str | None] = {}
    for name, platform in sorted(wanted, key=str):
        locked = matrix.base_locks[name, str(platform)]
        try:
            ensure_base(matrix.bases[name], platform, locked, ports)
        except BaseMovedError as error:
            files[base_lock_path(name, str(platform))] = dump_base(error.made)
    return files
