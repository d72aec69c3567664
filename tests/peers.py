"""Other people's registry clients, to hold ours against: from Debian, and nothing is installed.

    peers(cache)["skopeo"].run("inspect", "--raw", f"docker://{image}")

cosign and oras are static programs of Debian 13, which run on Debian 12 too; skopeo is the host's
own release. crane is in no release: it is there where it is on PATH.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError
from curator.provision import _apt

if TYPE_CHECKING:
    from collections.abc import Mapping

STATIC_SUITE = "trixie"
STATIC = ("cosign", "oras")
# skopeo and the libraries that a minimal system lacks.
SKOPEO = {
    "bookworm": ("skopeo", "libgpgme11", "libassuan0", "libdevmapper1.02.1", "libgpg-error0"),
    "trixie": ("skopeo", "libgpgme11t64", "libassuan9", "libsqlite3-0", "libgpg-error0"),
}
# No policy or mirrors of this machine decide on what a test sees.
OPTIONS = {"skopeo": ("--insecure-policy",)}
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program that runs with libraries of its own, and with nobody's configuration."""

    program: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *args: str, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end, with `environment` added to its own; outputs are captured."""
        command = [str(self.program), *self.options, *args]
        variables = {**self.environment, **(environment or {})}
        result = subprocess.run(
            command, capture_output=True, check=False, env=variables, timeout=TIMEOUT_S
        )
        if check and result.returncode:
            told = result.stderr.decode(errors="replace").strip()
            raise AssertionError(f"{' '.join(command)}: exit {result.returncode}: {told[-2000:]}")
        return result


def peers(cache: Path) -> Mapping[str, Peer]:
    """Return the programs by name, unpacked once into the cache.

    Raises:
        HostError: Debian's packages do not serve this machine.
        TemporaryError: the mirror did not serve them.
    """
    prefix = cache.resolve() / "tests" / "peers"
    if not prefix.exists():
        _unpack(prefix)
    found = {
        name: _peer(prefix / "usr/bin" / name, prefix, OPTIONS.get(name, ()))
        for name in (*STATIC, "skopeo")
    }
    crane = shutil.which("crane")
    return found | ({"crane": _peer(Path(crane), prefix, ())} if crane else {})


def _unpack(prefix: Path) -> None:
    """Make the prefix as a whole; another process may be first."""
    suite = _apt.host_suite()
    if suite not in SKOPEO:
        raise HostError(f"no skopeo for {suite}: this takes Debian 12 or 13")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prefix.parent) as directory:
        made, state = Path(directory) / "made", Path(directory) / "state"
        _apt.unpack(STATIC, STATIC_SUITE, made, state)
        _apt.unpack(SKOPEO[suite], suite, made, state)
        (made / "home").mkdir()
        with contextlib.suppress(OSError):
            made.rename(prefix)


def _peer(program: Path, prefix: Path, options: tuple[str, ...]) -> Peer:
    machine = f"{os.uname().machine}-linux-gnu"
    libraries = ":".join(f"{prefix}/{folder}/{machine}" for folder in ("usr/lib", "lib"))
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(prefix / "home"),
        "LD_LIBRARY_PATH": libraries,
    }
    return Peer(program=program, options=options, environment=environment)
