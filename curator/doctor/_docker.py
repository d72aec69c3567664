"""Docker: its client, its engine, and what builds images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from curator.doctor._run import TIMED_OUT, document, run, said
from curator.doctor._values import Docker, Embedded, Finding, Look, State

if TYPE_CHECKING:
    import subprocess

INSTALL = "install Docker 25 or later (docs.docker.com/engine/install), or `curator engine up`"
BUILDER = (
    "docker buildx create --name curator --driver docker-container --driver-opt network=host "
    "&& export CURATOR_BUILDER=curator"
)
STORE = (
    '{"features": {"containerd-snapshotter": true}} in /etc/docker/daemon.json and restart '
    f"Docker, or: {BUILDER}"
)
# The first whose default seccomp profile answers clone3, which glibc from 2.34 on starts threads
# with. Source: Docker Engine 20.10.10 release notes.
THREADS: Final = (20, 10, 10)
BUILDING: Final = (25, 0, 0)

# What docker's client says when no engine answers, and what to do then.
_SILENT: Final = (
    (
        r"permission denied",
        'sudo usermod -aG docker "$USER", then log in again; or run curator as root',
    ),
    (r"context .*(?:not found|does not exist|cannot be)", "docker context use default"),
    (r"is too (?:new|old)", "update Docker's client and engine to the same release"),
    (r"no answer in", "sudo systemctl restart docker"),
)


def look_at_engine(look: Look, embedded: Embedded) -> tuple[Docker | None, Finding]:
    """Find an engine that answers: the system's before the private one, as a run does."""
    client = shutil.which("docker", path=look.environ.get("PATH"))
    problem = "there is no docker program on PATH"
    fix = INSTALL
    if client is not None:
        answer = run([client, "version", "--format", "{{json .}}"], look.environ)
        found = _answering((client,), answer, look)
        if found is not None:
            return found, _engine(found, "")
        problem, fix = said(answer), _fix(answer, look)
    private = _private(look, embedded)
    if private is not None:
        return private, _engine(private, problem if client else "")
    return None, Finding(name="docker", state="fail", text=problem, fix=fix)


def _answering(
    command: tuple[str, ...], answer: subprocess.CompletedProcess[str], look: Look
) -> Docker | None:
    server = document(answer.stdout).get("Server")
    if not isinstance(server, dict) or not server.get("Version"):
        return None
    info = document(run([*command, "info", "--format", "{{json .}}"], look.environ).stdout)
    nodename = Path(look.root, "proc/sys/kernel/hostname")
    name = nodename.read_text().strip() if nodename.exists() else ""
    return Docker(
        command=command,
        version=str(server["Version"]),
        info=info,
        is_here=not name or info.get("Name") == name,
    )


def _private(look: Look, embedded: Embedded) -> Docker | None:
    found = embedded.status.engine if embedded.status else None
    if found is None or found.kind != "embedded":
        return None
    answer = run([*found.command, "version", "--format", "{{json .}}"], look.environ)
    return _answering(found.command, answer, look)


def _fix(answer: subprocess.CompletedProcess[str], look: Look) -> str:
    words = answer.stderr + answer.stdout
    for pattern, fix in _SILENT:
        if re.search(pattern, words):
            return fix
    if answer.returncode == TIMED_OUT:
        return "sudo systemctl restart docker"
    if place := look.environ.get("DOCKER_HOST"):
        return f"start the engine at {place}, or: unset DOCKER_HOST"
    return "sudo systemctl start docker, or: curator engine up"


def _engine(docker: Docker, silent: str) -> Finding:
    """Judge an engine that answers; `silent` says why the system's own does not, if it does not."""
    number = tuple(int(part) for part in re.findall(r"[0-9]+", docker.version)[:3])
    which = "the private engine" if len(docker.command) > 1 else "the engine"
    state: State = "ok"
    text, fix = f"{which} answers: Docker {docker.version}", ""
    if number < THREADS:
        state, fix = "warn", INSTALL
        text += "; it keeps images with glibc 2.34 or later from starting threads"
    elif number < BUILDING:
        state, fix = "warn", INSTALL
        text += "; building takes 25 or later"
    elif silent:
        state, fix = "warn", "make it answer, or leave it: what is built goes to the private engine"
        text += f"; the system's does not: {silent}"
    return Finding(name="docker", state=state, text=text, fix=fix)


def look_at_builder(look: Look, docker: Docker) -> Finding:
    """Say whether images can be built and taken out of the engine as OCI layouts."""
    answer = run([*docker.command, "buildx", "version"], look.environ)
    if answer.returncode:
        fix = "sudo apt-get install -y docker-buildx-plugin (Debian's own: docker-buildx)"
        return Finding(name="buildx", state="fail", text=f"no buildx: {said(answer)}", fix=fix)
    version = next(iter(re.findall(r"v?[0-9]+\.[0-9.]+\S*", answer.stdout)), "of some version")
    if builder := look.environ.get("CURATOR_BUILDER"):
        return _builder(look, docker, builder, version)
    drivers = docker.info.get("DriverStatus") or ()
    kinds = [item[1] for item in drivers if len(item) == 2 and item[0] == "driver-type"]  # noqa: PLR2004
    if any("io.containerd.snapshotter" in kind for kind in kinds):
        text = f"buildx {version}; the engine's image store exports OCI layouts"
        return Finding(name="buildx", state="ok", text=text)
    text = f"buildx {version} is there, but the engine's image store exports no OCI layouts"
    return Finding(name="buildx", state="fail", text=text, fix=STORE)


def _builder(look: Look, docker: Docker, builder: str, version: str) -> Finding:
    answer = run([*docker.command, "buildx", "inspect", builder], look.environ)
    if answer.returncode == 0:
        text = f"buildx {version} with the builder {builder}"
        return Finding(name="buildx", state="ok", text=text)
    fix = BUILDER.replace("curator ", f"{builder} ", 1).replace("=curator", f"={builder}")
    text = f"CURATOR_BUILDER names {builder}: {said(answer)}"
    return Finding(name="buildx", state="fail", text=text, fix=f"{fix}; or: unset CURATOR_BUILDER")


def container_name() -> str:
    """Return a name that no other container has."""
    return f"curator-doctor-{uuid4().hex[:12]}"
