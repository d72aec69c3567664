"""A registry of our own over a directory: Debian's docker-registry, on loopback."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from curator.errors import HostError
from curator.provision import _processes

if TYPE_CHECKING:
    from pathlib import Path


def start(root: Path, tools: Path, *, port: int) -> str:
    """Start a registry over a directory on a loopback port and return its `host:port`."""
    root.mkdir(parents=True, exist_ok=True)
    if _processes.listens(port):
        raise HostError(f"the registry's port {port} is taken: address already in use")
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(root / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (root / "config.json").write_text(json.dumps(config, indent=1))
    (root / "port").write_text(str(port))
    log = root / "registry.log"
    command = [str(tools / "usr/bin/docker-registry"), "serve", str(root / "config.json")]
    environment = {"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"}
    daemon = _processes.start(command, log=log, environment=environment)
    _processes.wait_until(lambda: _processes.listens(port), daemon, log, what="the registry")
    return f"127.0.0.1:{port}"


def stop(root: Path) -> None:
    """Stop the registry over a directory, if it runs."""
    _processes.stop(root / "config.json")


def running(root: Path) -> str | None:
    """Return the `host:port` of the registry over a directory, if it runs."""
    if _processes.find(root / "config.json") is None:
        return None
    return f"127.0.0.1:{(root / 'port').read_text().strip()}"


def kept_port(root: Path) -> int:
    """Return the port that a daemon had before, so that references stay valid."""
    with contextlib.suppress(OSError, ValueError):
        port = int((root / "port").read_text())
        if not _processes.listens(port):
            return port
    return _processes.free_port()
