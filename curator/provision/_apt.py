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

# As in http://deb.debian.org/debian, .../archive/debian/20250520T000000Z of a snapshot, and
# mirror+file:///etc/apt/mirrors/debian.list of Debian's cloud images.
ARCHIVE = re.compile(r"/debian(\.list|/\w+)?$")
SECURITY = re.compile(r"/debian-security(\.list|/\w+)?$")

# Emptying a list takes a file: on a command line apt only appends to it.
NO_HOOKS = "".join(
    f"#clear APT::Update::{event};\n"
    for event in ("Post-Invoke", "Post-Invoke-Success", "Post-Invoke-Failure")
)


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
    found = sorted(_configured(), key=_Source.is_foreign)
    archive = next((source for source in found if ARCHIVE.search(source.uri)), None)
    if archive is None:
        raise HostError(
            "apt here has no Debian archive (a URI with /debian, component main): add one, "
            "or install Docker 25 or later with buildx"
        )
    security = next((source.uri for source in found if SECURITY.search(source.uri)), None)
    return Mirrors(archive=archive.uri, security=security, keyring=archive.key or KEYRING)


@dataclass(frozen=True, slots=True)
class _Source:
    """One URI that binary packages of component `main` come from."""

    uri: str
    key: str | None

    def is_foreign(self) -> bool:
        """Whether it is signed with another key than Debian's, as other vendors' archives are."""
        return self.key is not None and not Path(self.key).name.startswith("debian-archive")


def _configured() -> Iterator[_Source]:
    """Give the machine's sources, in both of apt's formats (sources.list(5))."""
    for file in sorted((SOURCES / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            yield from _stanza(stanza)
    for file in (SOURCES / "sources.list", *sorted((SOURCES / "sources.list.d").glob("*.list"))):
        if not file.is_file():
            continue
        pattern = r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+\S+\s+([^\n#]*)"
        for options, uri, components in re.findall(pattern, file.read_text(), re.MULTILINE):
            key = re.search(r"signed-by=(\S+)", options)
            if "main" in components.split():
                yield _Source(uri.rstrip("/"), key[1] if key else None)


def _stanza(text: str) -> Iterator[_Source]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = re.findall(r"^([A-Za-z-]+):(.*(?:\n[ \t].*)*)", lines, re.MULTILINE)
    fields = {name.lower(): value.split() for name, value in found}
    enabled = fields.get("enabled", ["yes"])[0].lower() not in {"no", "false", "0", "off"}
    if enabled and "deb" in fields.get("types", ()) and "main" in fields.get("components", ()):
        key = next((word for word in fields.get("signed-by", ()) if word.startswith("/")), None)
        for uri in fields.get("uris", ()):
            yield _Source(uri.rstrip("/"), key)


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
    shutil.rmtree(where, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "debs"):
        (where / folder).mkdir(parents=True, exist_ok=True)
    (where / "sources.list").write_text("\n".join(mirrors().lines(suite)) + "\n")
    (where / "apt.conf").write_text(NO_HOOKS)
    options = [
        f"-c{where / 'apt.conf'}",
        f"-oDir::Etc::sourcelist={where / 'sources.list'}",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::Lists={where / 'lists'}",
        f"-oDir::Cache={where / 'cache'}",
        "-oAPT::Sandbox::User=root",
        "-oAcquire::Languages=none",
        "-oAcquire::Retries=3",
    ]
    _apt(["apt-get", *options, "update", "-qq"], where)
    _apt(["apt-get", *options, "download", "-qq", *packages], where / "debs")
    for package in sorted((where / "debs").glob("*.deb")):
        _apt(["dpkg", "-x", str(package), str(prefix)], where)
    shutil.rmtree(where)


def transport() -> list[str]:
    """Return what this machine's apt says of proxies, certificates and retries, as options."""
    command = ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wanted = re.compile(r'^Acquire::(http|https|Retries)\b.*[^:] ".+";$', re.IGNORECASE)
    return [line for line in result.stdout.splitlines() if wanted.match(line)]


def _apt(command: Sequence[str], directory: Path) -> None:
    result = subprocess.run(  # noqa: S603 - apt and dpkg, with arguments we made
        command, cwd=directory, capture_output=True, text=True, check=False
    )
    if result.returncode:
        told = " ".join((result.stderr or result.stdout).split())[-400:]
        raise TemporaryError(f"{' '.join(command[:1])} failed: {told}")
