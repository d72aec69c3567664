"""Who a container belongs to, so that what a killed run left can be told from what still runs.

An engine may serve several machines. Only the machine that an owner ran on can say that the owner
is gone, and there a process is known by its id and start time: ids are used again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process: the machine it runs on, its id, and its start in clock ticks since boot."""

    machine: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        pid = os.getpid()
        return cls(machine=_machine(), pid=pid, started=_started(pid) or 0)

    def is_gone(self) -> bool:
        """Whether it certainly runs no more; another machine's process may well run."""
        return self.machine == _machine() and _started(self.pid) != self.started


def _machine() -> str:
    """Name what gives process ids their meaning: one boot of one machine, one id namespace.

    Copies of a virtual machine share its id and name; they differ in the boot.
    """
    files = [Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id")]
    parts = [file.read_text().strip() for file in files if file.is_file()]
    parts += [os.uname().nodename, str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _started(pid: int) -> int | None:
    """Return a process's start time, or None if it is gone (a zombie is).

    Source: proc_pid_stat(5), fields 3 and 22; the second may hold blanks and brackets.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
