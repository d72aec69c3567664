"""Builds through buildx (python-on-whales), each in a process group that can be stopped.

- The image is exported as an OCI layout and pushed by our own client: pushing from BuildKit puts
  the attestation and the platform's manifest onto the tag before the index, so a reader, or a
  kill, would find a wrong digest there.
- The digest is the metadata file's, and must be the layout's own.
- Secrets reach a build as BuildKit secrets only, never as arguments: provenance records those.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.errors import BuildError, CancelledError, IntegrityError, TemporaryError
from curator.oci import Digest, Platform

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from curator.oci import Reference
    from curator.ports import EngineAddress
    from curator.recipe import Recipe

GRACE_S = 10.0
POLL_S = 0.1
TAIL_BYTES = 256 * 1024
TOLD_LINES = 6
SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"

# What BuildKit, uv and registries say of failures that pass; the last lines of a log are searched.
_TRANSIENT = re.compile(
    r"connection reset|connection refused|connection closed|i/o timeout|TLS handshake timeout"
    r"|temporary failure in name resolution|dns error|error sending request|operation timed out"
    r"|unexpected EOF|unexpected status.*: 5\d\d|429 Too Many Requests|503 Service Unavailable"
    r"|HTTP status server error \(5\d\d"
    r"|Cannot connect to the Docker daemon|no space left on device",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildxEngine:
    """`curator.ports.Engine` over the engine at an address.

    `cache=False` builds every step anew, for checking that a build is reproducible.
    """

    address: EngineAddress
    cache: bool = True

    def platforms(self) -> tuple[Platform, ...]:
        """Return what the builder can build for, its own platform first."""
        builder = (self.address.builder,) if self.address.builder else ()
        command = [*self.address.command, "buildx", "inspect", *builder]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        match = re.search(r"^Platforms:\s*(.+)$", result.stdout, re.MULTILINE)
        if result.returncode or not match:
            raise TemporaryError(f"buildx does not answer: {result.stderr.strip()[:300]}")
        names = dict.fromkeys("/".join(p.strip(" *").split("/")[:2]) for p in match[1].split(","))
        return tuple(Platform.parse(name) for name in names)

    def build(  # noqa: PLR0913 - as the port
        self,
        recipe: Recipe,
        *,
        base: Reference,
        layout: Path,
        log: Path,
        secrets: Mapping[str, Path],
        timeout_s: int,
        cancelled: threading.Event,
    ) -> Digest:
        """Build into a new OCI layout directory and return the digest of its image."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=layout.parent, prefix="context.") as directory:
            context = Path(directory)
            metadata = context / "metadata.json"
            write_context(recipe, context / "context")
            _place_uv(context / "uv")
            spec = self._spec(recipe, context / "context", metadata, base, layout, secrets)
            code = _run(spec, log, timeout_s, cancelled, recipe.cell)
            if code:
                raise _failure(recipe.cell, log, code)
            return _digest(metadata, layout)

    def _spec(  # noqa: PLR0913, PLR0917 - everything a build is told
        self,
        recipe: Recipe,
        context: Path,
        metadata: Path,
        base: Reference,
        layout: Path,
        secrets: Mapping[str, Path],
    ) -> dict[str, Any]:
        output = {
            "type": "oci",
            "tar": "false",
            "dest": str(layout),
            "compression": "zstd",
            "oci-mediatypes": "true",
        }
        return {
            "docker": self.address.docker,
            "host": self.address.host,
            "docker_context": self.address.context,
            "config": self.address.config,
            "builder": self.address.builder,
            "cache": self.cache,
            "context": str(context),
            "metadata": str(metadata),
            "platform": str(recipe.platform),
            "labels": recipe.labels,
            "build_args": {"SOURCE_DATE_EPOCH": str(recipe.epoch)},
            "build_contexts": {"base": f"docker-image://{base}", "uv": str(context.parent / "uv")},
            "output": output,
            "secrets": [f"id={name},src={path}" for name, path in sorted(secrets.items())],
        }


def write_context(recipe: Recipe, directory: Path) -> None:
    """Write a recipe's Dockerfile and context below a new directory, whatever the umask is."""
    for name, text in (("Dockerfile", recipe.dockerfile), *recipe.context):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)


def build_secrets(environ: Mapping[str, str], directory: Path) -> dict[str, Path]:
    """Return the secrets that builds on this machine need: name -> file.

    `ca` is the machine's bundle of authorities, for private ones; `uv` is a configuration with the
    package indexes that pip or uv are set to here, credentials and all, in a file only we can read.
    """
    names = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
    bundles = [environ[name] for name in names if environ.get(name)]
    found = {"uv": directory / "uv.toml"}
    for bundle in (*bundles, SYSTEM_CA):
        if Path(bundle).is_file():
            found["ca"] = Path(bundle).resolve()
            break
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(found["uv"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)  # a file that was there already keeps its mode
        file.write(_uv_settings(environ))
    return found


def _uv_settings(environ: Mapping[str, str]) -> str:
    default = next(
        (
            environ[n]
            for n in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
            if environ.get(n)
        ),
        None,
    )
    extra = environ.get("UV_EXTRA_INDEX_URL", "").split()
    lines = [f"index-url = {json.dumps(default)}"] if default else []
    return "\n".join([*lines, f"extra-index-url = {json.dumps(extra)}"]) + "\n"


def _place_uv(directory: Path) -> None:
    """Put uv's static binary into a directory of its own: a build context is sent whole."""
    from uv import find_uv_bin  # noqa: PLC0415

    directory.mkdir()
    source = Path(find_uv_bin()).resolve()
    try:
        (directory / "uv").hardlink_to(source)
    except OSError:
        shutil.copy2(source, directory / "uv")


def _run(
    spec: dict[str, Any], log: Path, timeout_s: int, cancelled: threading.Event, cell: str
) -> int:
    """Run one build to its end, its deadline or its cancellation, and return the exit status."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "curator.engine._worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None  # noqa: S101 - a pipe was asked for
            process.stdin.write(json.dumps(spec).encode() + b"\n")
            process.stdin.flush()
            return _wait(process, log, timeout_s, cancelled, cell)
        finally:
            _stop(process)


def _wait(
    process: subprocess.Popen[bytes],
    log: Path,
    timeout_s: int,
    cancelled: threading.Event,
    cell: str,
) -> int:
    deadline = time.monotonic() + timeout_s
    while (code := process.poll()) is None:
        if cancelled.wait(POLL_S):
            raise CancelledError(f"{cell}: the build was stopped")
        if time.monotonic() > deadline:
            raise BuildError(
                f"{cell}: the build took more than {timeout_s} s and was stopped, see {log}"
            )
    return code


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a build's whole process group: politely, then for certain."""
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            if number == signal.SIGKILL:
                break
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _failure(cell: str, log: Path, code: int) -> BuildError | TemporaryError:
    """Return what went wrong, told by the failing step's last lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    told = _failing_step(lines) or [line for line in lines if line.strip()]
    message = f"{cell}: the build failed (status {code}), see {log}"
    for line in told[-TOLD_LINES:]:
        message += f"\n  {line[:300]}"
    if _TRANSIENT.search("\n".join(told)):
        return TemporaryError(message)
    return BuildError(message)


def _failing_step(lines: Sequence[str]) -> list[str]:
    """Return what the step that BuildKit calls failed had printed, without numbers and times."""
    failed = [match[1] for line in lines if (match := re.match(r"#(\d+) ERROR: ", line))]
    if not failed:
        return []
    prefix = re.compile(rf"#{failed[0]} (?:\d+\.\d+ |ERROR: )")
    return [prefix.sub("", line) for line in lines if prefix.match(line)]


def _digest(metadata: Path, layout: Path) -> Digest:
    told = json.loads(metadata.read_text()).get("containerimage.digest")
    listed = [
        item["digest"] for item in json.loads((layout / "index.json").read_text())["manifests"]
    ]
    if listed != [told]:
        raise IntegrityError(f"buildx reports {told}, but its layout holds {listed}")
    return Digest(told)
