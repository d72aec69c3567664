"""Debian packages unpacked below a directory of ours, without installing anything.

The mirrors are those that this machine's own apt uses; its configuration (proxies, credentials)
holds too, only state and sources are separate.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES = Path("/etc/apt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """Where this machine gets Debian from; `security` may be absent."""

    archive: str
    security: str | None
    keyring: str

    def lines(self, suite: str) -> list[str]:
        """Return the one-line sources of a suite with its updates, as far as there are any."""
        option = f"[signed-by={self.keyring}]"
        lines = [f"deb {option} {self.archive} {name} main" for name in (suite, f"{suite}-updates")]
        if self.security:
            lines.append(f"deb {option} {self.security} {suite}-security main")
        return lines


def mirrors() -> Mirrors:
    """Return the mirrors of this machine's apt.

    Raises:
        HostError: this is no Debian-like machine.
    """
    needed = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if needed:
        raise HostError(
            f"{' and '.join(needed)} not found: a private engine is made from Debian packages; "
            "on other systems install Docker 25 or later with buildx"
        )
    found = [(uri.rstrip("/"), key) for uri, key in _configured()]
    archive = next((uri for uri, _ in found if uri.endswith("/debian")), None)
    if archive is None:
        raise HostError(
            "apt here has no Debian archive (a URI ending in /debian): add one, "
            "or install Docker 25 or later with buildx"
        )
    security = next((uri for uri, _ in found if uri.endswith("debian-security")), None)
    keyring = next((key for uri, key in found if uri == archive and key), KEYRING)
    return Mirrors(archive=archive, security=security, keyring=keyring)


def _configured() -> Iterator[tuple[str, str | None]]:
    """Give each (URI, keyring) of the machine's sources, in both of apt's formats."""
    for file in sorted((SOURCES / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(\S.*)$", stanza, re.MULTILINE))
            for uri in fields.get("URIs", "").split():
                key = fields.get("Signed-By", "")
                yield uri, key if key.startswith("/") else None
    for file in (SOURCES / "sources.list", *sorted((SOURCES / "sources.list.d").glob("*.list"))):
        if not file.is_file():
            continue
        pattern = r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)"
        for options, uri in re.findall(pattern, file.read_text(), re.MULTILINE):
            key = re.search(r"signed-by=(\S+)", options)
            yield uri, key[1] if key else None


def host_suite() -> str:
    """Return this machine's own suite, such as `bookworm`."""
    text = Path("/etc/os-release").read_text()
    match = re.search(r"^VERSION_CODENAME=(\S+)", text, re.MULTILINE)
    if match is None:
        raise HostError("/etc/os-release names no Debian release: install Docker with buildx")
    return match[1].strip('"')


def unpack(packages: Sequence[str], suite: str, prefix: Path, state: Path) -> None:
    """Download packages of a suite and unpack them below `prefix`.

    Raises:
        TemporaryError: the mirror did not serve them.
    """
    where = state / suite
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (where / folder).mkdir(parents=True, exist_ok=True)
    (where / "sources.list").write_text("\n".join(mirrors().lines(suite)) + "\n")
    options = [
        f"-oDir::Etc::sourcelist={where / 'sources.list'}",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::Lists={where / 'lists'}",
        f"-oDir::Cache={where / 'cache'}",
        "-oAPT::Sandbox::User=root",
        "-oAPT::Update::Post-Invoke=",
        "-oAPT::Update::Post-Invoke-Success=",
        "-oAcquire::Languages=none",
        "-oAcquire::Retries=3",
    ]
    _apt(["apt-get", *options, "update", "-qq"], where)
    _apt(["apt-get", *options, "download", "-qq", *packages], where / "debs")
    for package in sorted((where / "debs").glob("*.deb")):
        _apt(["dpkg", "-x", str(package), str(prefix)], where)
    shutil.rmtree(where)


def _apt(command: Sequence[str], directory: Path) -> None:
    result = subprocess.run(  # noqa: S603 - apt and dpkg, with arguments we made
        command, cwd=directory, capture_output=True, text=True, check=False
    )
    if result.returncode:
        told = " ".join((result.stderr or result.stdout).split())[-400:]
        raise TemporaryError(f"{' '.join(command[:1])} failed: {told}")
