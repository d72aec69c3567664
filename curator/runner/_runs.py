"""The directories of runs, each held by its owner, and the end of those that nobody holds.

- A run's directory is locked while its owner lives; a killed owner's lock is gone by itself.
- What is left of a run is found by the run's name, which is in the command lines of its runtime and
  in the mounts of its container: no pid file could be half written, or name another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "run-"
RUNTIME = "runtime"
STATE = "state"
CONTROL_GROUPS = Path("/sys/fs/cgroup")
END_S = 20.0
POLL_S = 0.05


@contextlib.contextmanager
def directory(work: Path) -> Iterator[Path]:
    """Give a new directory for one run, and end and remove whatever the run left."""
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(work / "lock"):
        path = work / f"{PREFIX}{place_of(work)}-{uuid.uuid4().hex}"
        path.mkdir(mode=0o700)
        held = _hold(path)
    assert held is not None  # noqa: S101 - nobody else looks before the lock is released
    try:
        yield path
    finally:
        try:
            end(path)
        finally:
            os.close(held)


def place_of(work: Path) -> str:
    """Return what the names of all runs below a directory share, in control groups too."""
    return hashlib.sha256(str(work.resolve()).encode()).hexdigest()[:8]


def sweep(work: Path) -> None:
    """End and remove what killed runs left."""
    if not work.is_dir():
        return
    with _locked(work / "lock"):
        held = {path: _hold(path) for path in work.glob(f"{PREFIX}*")}
    for path, descriptor in held.items():
        if descriptor is not None:
            try:
                end(path)
            finally:
                os.close(descriptor)


def end(path: Path) -> None:
    """Kill a run's processes, let its runtime forget the container, and remove its files.

    Raises:
        HostError: something of it cannot be ended.
    """
    stop(path)
    runtime = path / RUNTIME
    if runtime.is_file():
        command = [runtime.read_text(), "--root", str(path / STATE), "delete", "--force", path.name]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, check=False, timeout=END_S)  # noqa: S603
    for group in _control_groups(path.name):
        with contextlib.suppress(OSError):
            group.rmdir()
    shutil.rmtree(path)


def stop(path: Path) -> None:
    """Kill the processes of a run: its runtime's, and those in its container."""
    deadline = time.monotonic() + END_S
    while found := _processes(path.name):
        if time.monotonic() > deadline:
            raise HostError(f"processes of {path} cannot be ended: {sorted(found)}")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _processes(name: str) -> set[int]:
    """Return the processes that name a run in their command lines or their mounts."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "mountinfo"):
            with contextlib.suppress(OSError):
                if name.encode() in (place / file).read_bytes():
                    found.add(int(place.name))
    return found - {os.getpid()}


def _control_groups(name: str) -> Iterator[Path]:
    """Give a run's control groups; a runtime that fails half-way forgets them."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = {line.split(":", 2)[2].strip("/") for line in lines}
    for parent in {"", *own}:
        for pattern in (f"{parent}/{name}", f"*/{parent}/{name}"):
            yield from CONTROL_GROUPS.glob(pattern.replace("//", "/").strip("/"))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hold(path: Path) -> int | None:
    """Lock a directory, if nobody has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
