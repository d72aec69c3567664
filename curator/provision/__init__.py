"""What a machine without Docker, a registry or a cloud needs: private ones, and bases.

- A system's engine is used if one answers; nothing on the system is ever changed.
- Everything private lives in one cache directory: programs unpacked from Debian packages, data,
  and logs. Programs come as a whole or not at all; a daemon is known by its configuration file.
- `up` and `down` can be called again at any time, by several processes at once, and after a kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.errors import HostError
from curator.ports import EngineAddress
from curator.provision import _apt, _azurite, _processes, _registry
from curator.provision._base import make_base as _make_base

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from curator.lockfile import BaseLock
    from curator.matrix import Base
    from curator.oci import Platform

__all__ = [
    "Status",
    "down",
    "make_base",
    "start_azurite",
    "start_registry",
    "status",
    "stop_azurite",
    "stop_registry",
    "up",
]

# Debian 13's engine runs on Debian 12 as it is; its runc does not, so that is the host's own.
ENGINE_SUITE = "trixie"
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd", "tini")
TOOL_PACKAGES = ("docker-registry", "mmdebstrap")
PERL_MODULES = ("English", "Math::BigInt", "Term::ANSIColor", "Digest::SHA", "Time::HiRes")
BUILD_CACHE = "20GB"
AZURITE_STORE = "azure:curator"
ANSWER_S = 10.0
SOCKET_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is there: the engine that would be used, and the embedded registry's `host:port`.

    `azurite` is the connection string of the emulated Azure account.
    """

    engine: EngineAddress | None
    registry: str | None
    state: Path
    azurite: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the status for people and machines."""
        engine = self.engine
        return {
            "engine": engine and {"kind": engine.kind, "host": engine.host or "default"},
            "docker": " ".join(engine.command) if engine else None,
            "registry": self.registry,
            "azurite": self.azurite
            and {"AZURE_STORAGE_CONNECTION_STRING": self.azurite, "--store": AZURITE_STORE},
            "state": str(self.state),
        }


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are below the cache."""

    cache: Path

    @property
    def engine(self) -> Path:
        return self.cache / "engine"

    @property
    def prefix(self) -> Path:
        return self.engine / "prefix"

    @property
    def tools(self) -> Path:
        return self.engine / "tools"

    @property
    def run(self) -> Path:
        """A short directory for sockets: a socket's path is at most 107 bytes long."""
        path = self.engine / "run"
        if len(str(path)) <= SOCKET_LIMIT - len("/containerd/containerd.sock.ttrpc"):
            return path
        name = hashlib.sha256(str(self.cache).encode()).hexdigest()[:12]
        return Path("/run") / f"curator-{name}"

    @property
    def config(self) -> Path:
        return self.engine / "daemon.json"

    @property
    def engine_log(self) -> Path:
        return self.cache / "logs" / "dockerd.log"

    @property
    def registry(self) -> Path:
        return self.cache / "registry"

    @property
    def azurite(self) -> Path:
        return self.cache / "azurite"

    @property
    def address(self) -> EngineAddress:
        return EngineAddress(
            docker=str(self.prefix / "usr/bin/docker"),
            kind="embedded",
            host=f"unix://{self.run / 'docker.sock'}",
            config=str(self.engine / "client"),
        )


def status(cache: Path) -> Status:
    """Return what would be used now; starts nothing."""
    layout = _Layout(cache.resolve())
    return Status(
        engine=_engine(layout),
        registry=_registry.running(layout.registry),
        azurite=_azurite.running(layout.azurite),
        state=cache,
    )


def up(cache: Path, *, azurite: bool = False) -> Status:
    """Make an engine and a registry answer; with `azurite`, an emulated Azure account too.

    Raises:
        HostError: this machine cannot have them; the message says what to install.
        TemporaryError: the mirror did not serve the programs.
    """
    layout = _Layout(cache.resolve())
    with _locked(cache):
        if _engine(layout) is None:
            _wait_for_engine(layout, _processes.find(layout.config) or _start_engine(layout))
        if _registry.running(layout.registry) is None:
            _install_tools(layout)
            start_registry(layout.registry, layout.tools, port=_registry.kept_port(layout.registry))
    if azurite:
        start_azurite(cache)
    return status(cache)


def down(cache: Path, *, purge: bool = False) -> Status:
    """Stop what `up` started; with `purge`, remove everything it kept.

    Raises:
        HostError: something is mounted there and cannot be unmounted; nothing was removed.
    """
    layout = _Layout(cache.resolve())
    with _locked(cache):
        stop_registry(layout.registry)
        stop_azurite(layout.azurite)
        _processes.stop(layout.config)
        _processes.kill_users(layout.run)
        _unmount(layout)
        if purge:
            for path in (layout.engine, layout.registry, layout.azurite, layout.run):
                shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(HostError):  # the system's engine is no matter of `down`
        return status(cache)
    return Status(engine=None, registry=None, state=cache)


def make_base(base: Base, platform: Platform, destination: Path, *, cache: Path) -> BaseLock:
    """Make a base's image as an OCI layout in the new directory `destination`.

    Raises:
        HostError: this machine cannot make it.
        TemporaryError: the mirror did not serve a package.
    """
    layout = _Layout(cache.resolve())
    with _locked(cache):
        _install_tools(layout)
    return _make_base(base, platform, destination, layout.tools)


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "provision.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _engine(layout: _Layout) -> EngineAddress | None:
    """Return the engine that answers: the system's own before a private one."""
    client = shutil.which("docker")
    if client is not None:
        builder = os.environ.get("CURATOR_BUILDER")
        system = EngineAddress(docker=client, kind="system", builder=builder)
        if (info := _info(system)) is not None:
            _check_system(system, info)
            return system
    private = layout.address
    return private if Path(private.docker).exists() and _info(private) is not None else None


def _info(address: EngineAddress) -> dict[str, Any] | None:
    command = [*address.command, "info", "--format", "{{json .}}"]
    try:
        result = subprocess.run(  # noqa: S603 - a docker client, found on PATH or ours
            command, capture_output=True, text=True, check=False, timeout=ANSWER_S
        )
        info = json.loads(result.stdout or "{}")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return info if info.get("ServerVersion") else None


def _check_system(address: EngineAddress, info: dict[str, Any]) -> None:
    """Refuse a system's engine that cannot build as we need it."""
    result = subprocess.run(  # noqa: S603 - as above
        [*address.command, "buildx", "version"], capture_output=True, check=False
    )
    if result.returncode:
        raise HostError("Docker answers but has no buildx: install docker-buildx-plugin")
    drivers = dict(item for item in info.get("DriverStatus") or () if len(item) == 2)  # noqa: PLR2004
    if "io.containerd.snapshotter" not in drivers.get("driver-type", "") and not address.builder:
        raise HostError(
            "Docker answers but cannot export OCI layouts: turn its containerd image store on "
            '({"features": {"containerd-snapshotter": true}} in daemon.json), or create a builder '
            "(docker buildx create --name curator --driver docker-container --driver-opt "
            "network=host) and set CURATOR_BUILDER=curator"
        )


def _check_host() -> None:
    """Refuse a machine on which a private engine cannot work, or would harm."""
    if os.geteuid():
        raise HostError(
            "no Docker engine answers and a private one takes root: "
            "install Docker 25 or later with buildx, or run as root"
        )
    if os.uname().machine not in {"x86_64", "aarch64"}:
        raise HostError(f"no private engine for {os.uname().machine}: install Docker with buildx")
    if Path("/sys/class/net/docker0").exists():
        raise HostError(
            "another Docker engine owns the docker0 bridge but does not answer: start it, or set "
            "DOCKER_HOST to it"
        )
    _apt.mirrors()


def _install(prefix: Path, packages: Mapping[str, Sequence[str]], cache: Path) -> None:
    """Unpack packages (suite -> names) into a prefix that appears only when it is whole."""
    if prefix.exists():
        return
    partial = prefix.with_name(prefix.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for suite, names in packages.items():
        _apt.unpack(names, suite, partial, cache / "apt")
    partial.rename(prefix)


def _install_engine(layout: _Layout) -> None:
    packages = {ENGINE_SUITE: ENGINE_PACKAGES}
    host = _apt.host_suite()
    packages[host] = (*packages.get(host, ()), "runc")
    _install(layout.prefix, packages, layout.cache)


def _install_tools(layout: _Layout) -> None:
    if layout.tools.exists():
        return
    packages = {ENGINE_SUITE: TOOL_PACKAGES}
    if not _perl_is_whole():
        version = ".".join(_perl_version().split(".")[:2])
        host = _apt.host_suite()
        modules = (f"perl-modules-{version}", f"libperl{version}")
        packages[host] = (*packages.get(host, ()), *modules)
    _install(layout.tools, packages, layout.cache)


def _perl_is_whole() -> bool:
    """Whether perl has the modules that mmdebstrap uses; a minimal system's has not."""
    arguments = [f"-M{name}" for name in PERL_MODULES]
    result = subprocess.run(["perl", *arguments, "-e1"], capture_output=True, check=False)  # noqa: S603, S607
    return result.returncode == 0


def _perl_version() -> str:
    command = ["perl", "-e", 'printf "%vd", $^V']
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def _start_engine(layout: _Layout) -> _processes.Daemon:
    _check_host()
    _install_engine(layout)
    run = layout.run
    run.mkdir(parents=True, exist_ok=True)
    plugins = layout.engine / "client" / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    shutil.copy2(layout.prefix / "usr/libexec/docker/cli-plugins/docker-buildx", plugins)
    config = {
        "bridge": "none",
        "builder": {"gc": {"enabled": True, "defaultKeepStorage": BUILD_CACHE}},
        "data-root": str(layout.engine / "data"),
        "exec-root": str(run),
        "features": {"containerd-snapshotter": True},
        "hosts": [f"unix://{run / 'docker.sock'}"],
        "ip-forward": False,
        "ip6tables": False,
        "iptables": False,
        "pidfile": str(run / "docker.pid"),
    }
    layout.config.write_text(json.dumps(config, indent=1))
    programs = [str(layout.prefix / folder) for folder in ("usr/bin", "usr/sbin")]
    environment = {
        **os.environ,
        "PATH": ":".join([*programs, "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
    }
    (run / "docker.pid").unlink(missing_ok=True)
    command = [str(layout.prefix / "usr/sbin/dockerd"), "--config-file", str(layout.config)]
    return _processes.start(command, log=layout.engine_log, environment=environment)


def _wait_for_engine(layout: _Layout, daemon: _processes.Daemon) -> None:
    """Wait until our engine answers; one that is slow is not restarted, it may be building."""
    address, what = layout.address, "the private docker engine"
    _processes.wait_until(lambda: _info(address) is not None, daemon, layout.engine_log, what=what)


def _unmount(layout: _Layout) -> None:
    """Unmount what a killed engine left below its directories, the innermost first."""
    roots = tuple(f"{path}/" for path in (layout.engine, layout.run))
    for point in sorted((m for m in _mounts() if m.startswith(roots)), key=len, reverse=True):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)  # noqa: S603, S607
    left = [m for m in _mounts() if m.startswith(roots)]
    if left:
        raise HostError(f"{left[0]} is mounted and cannot be unmounted: run as root, or unmount it")


def _mounts() -> list[str]:
    """Return all mount points; the kernel writes spaces and the like in octal."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), x) for x in points]


def start_registry(root: Path, tools: Path, *, port: int) -> str:
    """Start a registry over a directory on a loopback port and return its `host:port`."""
    return _registry.start(root.resolve(), tools, port=port)


def stop_registry(root: Path) -> None:
    """Stop the registry over a directory, if it runs."""
    _registry.stop(root.resolve())


def start_azurite(cache: Path, root: Path | None = None) -> str:
    """Make an Azurite answer, and return its connection string.

    Its program comes from `cache`; its data lies in `root`, there as well if None.

    Raises:
        HostError: this machine has no node or no npm.
        TemporaryError: npm did not get it.
    """
    directory = _Layout(cache.resolve()).azurite
    root = root.resolve() if root else directory
    with _locked(cache):
        found = _azurite.running(root)
        return found or _azurite.start(
            root, _azurite.install(directory), port=_registry.kept_port(root)
        )


def stop_azurite(root: Path) -> None:
    """Stop the Azurite over a directory, if it runs."""
    _azurite.stop(root.resolve())
