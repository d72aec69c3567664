"""Azurite, the emulator of Azure Blob Storage, from npm: a container without an account.

- Its program is whole or not there; the user's own npm configuration (registry, proxy, cache)
  decides where it comes from, and no script of a package runs.
- Its account and key are the public ones of every Azurite, so it listens on loopback alone.
- It writes its books every few seconds: ended politely it keeps everything, killed it may lose
  what it acknowledged last.

Source: learn.microsoft.com/azure/storage/common/storage-use-azurite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from curator.errors import HostError, TemporaryError
from curator.provision import _processes

if TYPE_CHECKING:
    from pathlib import Path

# The last one for the node of Debian 12 and 13; those after it ask for node 21.
VERSION: Final = "3.35.0"
INSTALL_S: Final = 600.0
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_MAIN = "node_modules/azurite/dist/src/blob/main.js"


def install(directory: Path) -> Path:
    """Return the program below a directory; npm fetches it the first time.

    Raises:
        HostError: there is no node or no npm.
        TemporaryError: npm did not get the packages.
    """
    program = directory / VERSION
    if program.exists():
        return program
    npm = _found("npm")
    partial = directory / f"{VERSION}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
    command = [npm, "install", "--prefix", str(partial), *options, f"azurite@{VERSION}"]
    try:
        result = subprocess.run(  # noqa: S603 - npm, with arguments we made
            command, cwd=partial, capture_output=True, text=True, check=False, timeout=INSTALL_S
        )
    except subprocess.TimeoutExpired as error:
        raise TemporaryError(f"npm did not get Azurite in {INSTALL_S:g} s") from error
    if result.returncode or not (partial / _MAIN).exists():
        told = " ".join(result.stderr.split())[-400:]
        raise TemporaryError(f"npm did not get Azurite {VERSION}: {told}")
    partial.rename(program)
    return program


def start(root: Path, program: Path, *, port: int) -> str:
    """Start Azurite over a directory on a loopback port; return its connection string."""
    if _processes.listens(port):
        raise HostError(f"Azurite's port {port} is taken: address already in use")
    data = _data(root)
    data.mkdir(parents=True, exist_ok=True)
    (root / "port").write_text(str(port))
    command = [
        _found("node"), str(program / _MAIN), "--silent", "--disableTelemetry",
        # The SDK is newer than the emulator; what we ask of either is old.
        "--skipApiVersionCheck",
        "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(data),
    ]  # fmt: skip
    log = root / "azurite.log"
    daemon = _processes.start(command, log=log, environment=os.environ)
    _processes.wait_until(lambda: _processes.listens(port), daemon, log, what="Azurite")
    return _connection(port)


def stop(root: Path) -> None:
    """Stop the Azurite over a directory, if it runs; it writes its books first."""
    _processes.stop(_data(root))


def running(root: Path) -> str | None:
    """Return the connection string of the Azurite over a directory, if it runs."""
    if _processes.find(_data(root)) is None:
        return None
    return _connection(int((root / "port").read_text()))


def _data(root: Path) -> Path:
    return root / "data"


def _connection(port: int) -> str:
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )


def _found(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise HostError(f"Azurite needs {name}: install nodejs and npm")
    return program
