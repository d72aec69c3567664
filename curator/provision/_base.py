"""Root file systems from the distribution's archive, as images, without any registry.

The same packages give the same bytes: times are clamped to the base's epoch, and nothing of the
building machine stays (mirrors, resolver, host name, caches, logs). An image therefore has no apt
sources: whoever wants to install packages adds the ones they trust.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from curator.errors import HostError, TemporaryError
from curator.lockfile import BaseLock
from curator.oci import CONFIG, INDEX, LAYER_GZIP, MANIFEST, Descriptor, Digest, canonical_json
from curator.provision import _apt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curator.matrix import Base
    from curator.oci import Platform

CHUNK = 1024 * 1024
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The user that images run as; its home comes with the image.
USER = "user:x:1000:1000::/home/user:/bin/bash"
GROUP = "user:x:1000:"

# What a build leaves of its machine or its moment.
TRACES = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list", "etc/apt/sources.list.d/*", "etc/hostname", "etc/resolv.conf",
    "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-",
    "var/cache/apt/*", "var/cache/debconf/*", "var/cache/ldconfig/*",
    "var/lib/apt/lists/*", "var/lib/systemd/*", "var/log/*",
)  # fmt: skip


def make_base(base: Base, platform: Platform, destination: Path, tools: Path | None) -> BaseLock:
    """Make a base's image as an OCI layout in `destination`, and return what it consists of.

    `tools` is the prefix that holds mmdebstrap, or None for the system's own.

    Raises:
        HostError: this machine cannot make it.
        TemporaryError: the mirror did not serve a package.
    """
    destination.mkdir(parents=True)
    tar = destination / "rootfs.tar"
    _mmdebstrap(base, platform, tar, tools)
    lock = BaseLock(
        name=base.name,
        platform=str(platform),
        packages=_packages(tar),
        diff_id=_sha256(tar),
        size_bytes=tar.stat().st_size,
    )
    _write_layout(base, platform, lock, tar, destination)
    tar.unlink()
    return lock


def _mmdebstrap(base: Base, platform: Platform, tar: Path, tools: Path | None) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    if platform.architecture != machine:
        raise HostError(
            f"a base for {platform} can only be made on such a machine, this is {machine}"
        )
    if os.geteuid():
        raise HostError(
            "making a base takes root: run as root, or publish to a registry that has it"
        )
    program = tools / "usr/bin/mmdebstrap" if tools else Path(shutil.which("mmdebstrap") or "")
    assert base.suite is not None  # noqa: S101 - a base of this kind has one
    command = [
        str(program), "--mode=root", "--variant=minbase", "--quiet",
        f"--include={','.join(base.include)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in base.exclude_paths),
        *(f"--dpkgopt=path-include={pattern}" for pattern in base.keep_paths),
        # Whether apt can drop its rights depends on our path, and shows in what it makes.
        '--aptopt=APT::Sandbox::User "root";',
        *(f"--aptopt={option}" for option in _apt.transport()),
        *(f"--customize-hook={hook}" for hook in _hooks()),
        base.suite, str(tar), "-",
    ]  # fmt: skip
    environment = {
        "PATH": f"{tools}/usr/bin:{PATH}" if tools else PATH,
        "SOURCE_DATE_EPOCH": str(base.epoch),
        "TMPDIR": str(tar.parent),
        "LC_ALL": "C.UTF-8",
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
        **_perl(tools),
    }
    sources = "\n".join(_apt.mirrors().lines(base.suite)) + "\n"
    result = subprocess.run(  # noqa: S603 - mmdebstrap of our prefix
        command, input=sources, capture_output=True, text=True, check=False, env=environment
    )
    if result.returncode:
        told = " ".join(result.stderr.split())[-500:]
        raise TemporaryError(f"base {base.name} could not be made: {told}")


def _hooks() -> Sequence[str]:
    traces = " ".join(f'"$1"/{path}' for path in TRACES)
    return (
        f'echo "{USER}" >> "$1/etc/passwd"',
        f'echo "{GROUP}" >> "$1/etc/group"',
        f"rm -rf {traces}",
        'mkdir -p "$1/var/log" "$1/var/cache/apt/archives/partial" "$1/var/lib/apt/lists/partial"',
        ': > "$1/etc/machine-id"',
    )


def _perl(tools: Path | None) -> dict[str, str]:
    """Return where perl finds mmdebstrap's modules, if they were unpacked for it."""
    if tools is None:
        return {}
    folders = [*tools.glob("usr/share/perl/5.*"), *tools.glob("usr/lib/*/perl/5.*")]
    return {"PERL5LIB": ":".join(map(str, folders))} if folders else {}


def _packages(tar: Path) -> tuple[tuple[str, str], ...]:
    """Return (name, version) of what dpkg has installed in a root file system."""
    with tarfile.open(tar) as archive:
        member = archive.extractfile("./var/lib/dpkg/status")
        text = member.read().decode() if member else ""
    found = []
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line[:40])
        if fields.get("Status", "").endswith(" installed"):
            found.append((fields["Package"], fields["Version"]))
    return tuple(sorted(found))


def _sha256(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())


def _write_layout(
    base: Base, platform: Platform, lock: BaseLock, tar: Path, destination: Path
) -> None:
    """Write the root file system as a one-layer image.

    Source: OCI image specification, image-layout.md and config.md.
    """
    blobs = destination / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = _compress(tar, blobs)
    created = datetime.fromtimestamp(base.epoch, UTC).isoformat().replace("+00:00", "Z")
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": created,
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [lock.diff_id]},
        "history": [{"created": created, "comment": f"{base.name}: {base.suite}, minbase"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _write_blob(canonical_json(config), CONFIG, blobs).to_json(),
        "layers": [layer.to_json()],
    }
    listed = _write_blob(canonical_json(manifest), MANIFEST, blobs)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed.to_json()]}
    (destination / "index.json").write_bytes(canonical_json(index))
    (destination / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def _compress(tar: Path, blobs: Path) -> Descriptor:
    temporary = blobs / "layer"
    with (
        tar.open("rb") as source,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as target,
    ):
        shutil.copyfileobj(source, target, CHUNK)
    digest = _sha256(temporary)
    size = temporary.stat().st_size
    temporary.rename(blobs / digest.removeprefix("sha256:"))
    return Descriptor(media_type=LAYER_GZIP, digest=digest, size=size)


def _write_blob(data: bytes, media_type: str, blobs: Path) -> Descriptor:
    descriptor = Descriptor.of(data, media_type)
    (blobs / descriptor.digest.removeprefix("sha256:")).write_bytes(data)
    return descriptor
