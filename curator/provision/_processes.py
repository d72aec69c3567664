"""Daemons of ours: started in a session of their own, found again and stopped by a state file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A process that was started; `started` is its start time in clock ticks since boot.

    The start time tells the process from a later one with the same id.
    """

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def start(
    command: Sequence[str], *, log: Path, state: Path, environment: Mapping[str, str]
) -> Daemon:
    """Start a daemon and remember it in `state`."""
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
    daemon = Daemon(pid=process.pid, started=_started(process.pid) or 0)
    state.write_text(json.dumps(asdict(daemon)))
    return daemon


def find(state: Path) -> Daemon | None:
    """Return the daemon that a state file names, if it still runs."""
    try:
        daemon = Daemon(**json.loads(state.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return daemon if daemon.alive else None


def stop(state: Path) -> None:
    """End a daemon: politely, then for certain."""
    daemon = find(state)
    if daemon is not None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, number)
            if _within(STOP_S, lambda: not daemon.alive):
                break
    state.unlink(missing_ok=True)


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
