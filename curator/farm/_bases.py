"""Bases in the registry, made from their locks where they are missing; and room to work in."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import CuratorError, TemporaryError
from curator.lockfile import ImageLock
from curator.oci import Reference
from curator.recipe import base_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.farm._values import Ports
    from curator.lockfile import BaseLock
    from curator.matrix import Base
    from curator.oci import Platform

DISK_FLOOR_BYTES = 4 * 1024**3
# A build keeps a wheel five times over: downloaded, unpacked in the cache and in its stage, and
# compressed as a blob of the builder and of the layout; unpacked is about twice the size.
ROOM_PER_BYTE = 7


def ensure_base(
    base: Base, platform: Platform, locked: BaseLock | ImageLock, ports: Ports
) -> Reference:
    """Return a base's image by digest; what is missing in the registry is made from its lock.

    Raises:
        BaseMovedError: the distribution serves other packages than the lock names.
    """
    if isinstance(locked, ImageLock):
        return Reference.parse(locked.reference).with_digest(locked.digest)
    target = ports.place.repository(f"base/{base.name}").with_tag(base_key(base, locked))
    found = ports.registry.resolve(target)
    if found is not None:
        return target.with_digest(found.digest)
    with directory(ports.work, base.name) as folder:
        made = ports.make_base(base, platform, folder / "layout")
        if made.diff_id != locked.diff_id:
            raise BaseMovedError(base.name, locked, made)
        return target.with_digest(ports.registry.push(folder / "layout", target))


class BaseMovedError(CuratorError):
    """A base cannot be made as locked: the distribution has moved on. `made` is what it is now."""

    code = "base-moved"

    def __init__(self, name: str, locked: BaseLock, made: BaseLock) -> None:
        self.made = made
        changes = _package_changes(locked, made)
        shown = ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if changes[3:] else "")
        super().__init__(
            f"base {name} is no longer what its lock says "
            f"({shown or 'same packages, other bytes'}): "
            f"run `curator lock --bases {name}` and commit the result"
        )


def _package_changes(locked: BaseLock, made: BaseLock) -> list[str]:
    before, after = dict(locked.packages), dict(made.packages)
    names = sorted(before.keys() | after.keys())
    return [
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


@contextmanager
def directory(work: Path, name: str, *, wheels_bytes: int = 0) -> Iterator[Path]:
    """Give a directory that is gone afterwards, on a disk with room to install these wheels.

    Raises:
        TemporaryError: there is no such room.
    """
    work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free
    wanted = DISK_FLOOR_BYTES + ROOM_PER_BYTE * wheels_bytes
    if free < wanted:
        raise TemporaryError(
            f"{work} has {free // 1024**2} MiB left, {name} wants {wanted // 1024**2}: "
            "make room and run again"
        )
    with tempfile.TemporaryDirectory(dir=work, prefix=f"{name}.") as folder:
        yield Path(folder)


def sweep(work: Path) -> None:
    """Remove what killed runs left: each run works in a directory named by its process id."""
    for directory in work.parent.glob("*"):
        if directory.name.isdecimal() and not Path(f"/proc/{directory.name}").exists():
            shutil.rmtree(directory, ignore_errors=True)
