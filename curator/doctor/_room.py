"""Room: on the disks that images and downloads go to, and in shared memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from curator.doctor._values import Docker, Finding, Look

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB: Final = 1024**3
# An image of a framework takes 5 to 10 GiB, and as much again while it is unpacked or built.
IMAGES: Final = (10 * GIB, 40 * GIB)
CACHE: Final = (1 * GIB, 5 * GIB)
LEAST_FILES: Final = 0.01
# A data loader's processes hand their batches over in shared memory.
SHARED: Final = 1 * GIB
LOOK_AT_DOCKER = "docker system df, then docker system prune --all"


def look_at_disks(look: Look, docker: Docker | None) -> Iterator[Finding]:
    """Say how much room there is for images, and for downloads and logs."""
    if docker is not None:
        place = str(docker.info.get("DockerRootDir") or "")
        if docker.is_here and place and Path(place).exists():
            fix = f"{LOOK_AT_DOCKER}; or another data-root in /etc/docker/daemon.json"
            yield _disk("docker's disk", Path(place), IMAGES, fix)
        else:
            text = "not looked at: the engine is on another machine, or does not say where it is"
            yield Finding(name="docker's disk", state="skip", text=text)
    fix = f"set CURATOR_CACHE to a directory on a larger disk, or remove {look.cache / 'logs'}"
    yield _disk("cache's disk", look.cache, CACHE, fix)


def _disk(name: str, place: Path, floors: tuple[int, int], fix: str) -> Finding:
    there = next(path for path in (place, *place.parents) if path.exists())
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    text = f"{_size(free)} free at {place}"
    if not os.access(there, os.W_OK) and name.startswith("cache"):
        text = f"{there} cannot be written"
        return Finding(name=name, state="fail", text=text, fix=fix)
    if found.f_files and found.f_favail / found.f_files < LEAST_FILES:
        text = f"{found.f_favail} files more fit on the disk of {place}"
        return Finding(name=name, state="fail", text=text, fix=fix)
    least, enough = floors
    if free < least:
        return Finding(name=name, state="fail", text=f"{text}: less than {_size(least)}", fix=fix)
    if free < enough:
        text = f"{text}: {_size(enough)} are soon needed"
        return Finding(name=name, state="warn", text=text, fix=fix)
    return Finding(name=name, state="ok", text=text)


def look_at_shared_memory(look: Look) -> Finding:
    """Say how large shared memory is here, which containers with `--ipc=host` share."""
    place = look.root / "dev/shm"
    remount = "sudo mount -o remount,size=8g /dev/shm"
    if not place.is_dir():
        text = "there is no /dev/shm: several processes cannot share data"
        return Finding(
            name="shared memory", state="fail", text=text, fix="mount -t tmpfs shm /dev/shm"
        )
    found = os.statvfs(place)
    size = found.f_blocks * found.f_frsize
    if size < SHARED:
        text = f"{_size(size)} in /dev/shm: data loaders with several processes die of bus errors"
        fix = "start this container with --shm-size=8g" if _is_container(look.root) else remount
        return Finding(name="shared memory", state="warn", text=text, fix=fix)
    text = f"{_size(size)} in /dev/shm; a container has 64 MiB unless it is run with --shm-size"
    return Finding(name="shared memory", state="ok", text=text)


def _is_container(root: Path) -> bool:
    return any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))


def _size(size: int) -> str:
    number = size / GIB
    return f"{number:.1f} GiB" if number >= 1 else f"{size / 1024**2:.0f} MiB"
