"""Calls of `curator.provision` in a process of their own, on a machine that differs in one thing.

`python -m tests.machines VERB CACHE …` makes one call and prints its answer as JSON. Such a process
can be killed or raced, and it can have mounts, a host name or a user of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator import matrix, provision, settings
from curator.errors import CuratorError
from curator.lockfile import dump_base
from curator.oci import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parent.parent
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
PLATFORM = Platform.parse(f"linux/{MACHINE}")
# Where no engine answers: with it in DOCKER_HOST, a machine with Docker looks like one without.
NOBODY = "unix:///nonexistent/docker.sock"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
BRING_UP = 0x8914  # SIOCSIFFLAGS of linux/sockios.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call returned, or the error it raised by the name of its class."""

    value: dict[str, Any]
    error: str | None = None
    message: str = ""


def changed(script: str, *, own: str = "mount,uts") -> tuple[str, ...]:
    """Return the beginning of a command that runs after `script`, in namespaces of its own."""
    namespaces = [f"--{name}" for name in own.split(",")]
    return ("unshare", *namespaces, "sh", "-ec", f'{script}\nexec "$@"', "sh")


def start(
    verb: str,
    *arguments: Path,
    on: tuple[str, ...] = (),
    user: int = 0,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a call; `on` is the beginning of its command line, such as `changed` returns."""
    call = [sys.executable, "-m", "tests.machines", f"--user={user}", verb, *map(str, arguments)]
    return subprocess.Popen(
        [*on, *call],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> Answer:
    """Wait for a call and return its answer."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return Answer(**json.loads(out))


def call(
    verb: str,
    *arguments: Path,
    on: tuple[str, ...] = (),
    user: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Start a call and wait for it."""
    return answer(start(verb, *arguments, on=on, user=user, environment=environment))


def lend_programs(source: Path, cache: Path) -> None:
    """Give a new cache the programs of another, so that nothing is downloaded again."""
    for name in ("prefix", "tools"):
        link = cache / "engine" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source / "engine" / name)


def processes(directory: Path) -> dict[int, str]:
    """Return id and program of the processes that name a directory, and of their children."""
    ours: dict[int, str] = {}
    for pid, (parent, words) in sorted(_all_processes().items(), key=lambda item: item[1][0]):
        if parent in ours or any(str(directory) in word for word in words):
            ours[pid] = Path(words[0]).name
    return ours


def _all_processes() -> dict[int, tuple[int, list[str]]]:
    """Return the parent and command line of each process but this one."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
            found[int(place.name)] = (int(parent), words)
    found.pop(os.getpid(), None)
    return found


def mounts(directory: Path) -> list[str]:
    """Return the mount points below a directory, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), x.split()[1]) for x in lines]
    return sorted((p for p in points if p.startswith(f"{directory}/")), key=len, reverse=True)


def clear(directory: Path) -> None:
    """End and unmount whatever is left below a directory, and remove it."""
    for pid in processes(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for point in mounts(directory):
        subprocess.run(["umount", "--lazy", point], check=True)
    shutil.rmtree(directory, ignore_errors=True)


def _up(cache: Path) -> dict[str, Any]:
    return provision.up(cache).to_json()


def _base(cache: Path, destination: Path) -> dict[str, Any]:
    base = matrix.bases(settings.read_tree(ROOT))["debian-12"]
    made = provision.make_base(base, PLATFORM, destination, cache=cache)
    return {"lock": dump_base(made)}


def _forwarding(cache: Path) -> dict[str, Any]:
    """Say whether the kernel forwards packets before, with and after an engine."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, BRING_UP, struct.pack("16sH14x", b"lo", 1))
    before = FORWARDING.read_text().strip()
    try:
        provision.up(cache)
        return {"before": before, "with": FORWARDING.read_text().strip()}
    finally:
        provision.down(cache)


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "up": _up,
    "base": _base,
    "forwarding": _forwarding,
}


def main() -> None:
    """Make the call that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user", type=int, default=0)
    parser.add_argument("verb", choices=sorted(VERBS))
    parser.add_argument("arguments", nargs="*", type=Path)
    asked = parser.parse_args()
    if asked.user:
        os.setresuid(asked.user, asked.user, asked.user)
    try:
        found: dict[str, Any] = {"value": VERBS[asked.verb](*asked.arguments)}
    except CuratorError as error:
        found = {"value": {}, "error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
