"""Daemons of ours: in sessions of their own, known by the configuration file that they run with.

There are no pid files: a process is ours if its command line names our file, so nothing can be
lost, half written, or name somebody else's process by now.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A process that runs; `started` is its start time in clock ticks since boot.

    The start time tells the process from a later one with the same id.
    """

    pid: int
    started: int | None

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.started is not None and _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Daemon:
    """Start a daemon; its command line names its configuration file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - programs of the private prefix
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environment),
            cwd="/",
        )
    # Whoever started it may exit first; until then its exit must not leave a zombie.
    process.returncode = 0
    return Daemon(pid=process.pid, started=_started(process.pid))


def find(config: Path) -> Daemon | None:
    """Return the daemon that runs with a configuration file, if it runs."""
    for pid, (_, words) in _all().items():
        if str(config) in words and words[0].startswith("/"):
            return Daemon(pid=pid, started=_started(pid))
    return None


def stop(config: Path) -> None:
    """End a daemon: politely, then for certain."""
    daemon = find(config)
    if daemon is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, number)
        if _within(STOP_S, lambda: not daemon.alive):
            return


def kill_users(directory: Path) -> None:
    """Kill what names a path below a directory, with its children: a killed engine's containers."""
    ours: set[int] = set()
    for pid, (parent, words) in sorted(_all().items(), key=lambda item: item[1][0]):
        if parent in ours or any(word.startswith(f"{directory}/") for word in words[1:]):
            ours.add(pid)
    daemons = [Daemon(pid=pid, started=_started(pid)) for pid in ours]
    for daemon in daemons:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, signal.SIGKILL)
    _within(STOP_S, lambda: not any(daemon.alive for daemon in daemons))


def _all() -> dict[int, tuple[int, list[str]]]:
    """Return the parent and command line of each process but this one."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
            found[int(place.name)] = (int(parent), words)
    found.pop(os.getpid(), None)
    return found


def wait_until(ready: Callable[[], bool], daemon: Daemon, log: Path, *, what: str) -> None:
    """Wait until a daemon answers.

    Raises:
        HostError: it ended or does not answer; with the last lines of its log.
    """
    if _within(60.0, lambda: ready() or not daemon.alive) and daemon.alive:
        return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise HostError(f"{what} did not start, see {log}:\n{tail}")


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
