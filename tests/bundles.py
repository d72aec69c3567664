"""Images made by hand from layers of every kind, and the OCI runtimes that run them."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.oci import (
    CONFIG,
    INDEX,
    LAYER_GZIP,
    MANIFEST,
    Descriptor,
    Digest,
    Reference,
    canonical_json,
    hex_of,
    sha256,
)
from curator.provision import _apt
from tests.machines import MACHINE

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
CRUN = ("crun", "libcap2", "libseccomp2", "libyajl2")

# What of a Debian base python3 needs to run; 8 MB instead of 180.
PYTHON = re.compile(
    r"bin|lib|lib64|tmp|etc/(passwd|group)|home/user"
    r"|usr/bin/python3(\.\d+)?"
    r"|usr/lib64/.*|usr/lib/[^/]*-linux-gnu/(ld-linux|lib(c|m|z|dl|util|pthread|expat)\.so).*"
    r"|usr/lib/python3\.\d+(/(lib-dynload|encodings|collections|importlib|json|re)(/.*)?|/[^/]*\.py)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a layer's archive; a file unless `kind` says otherwise."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def file(name: str, data: bytes = b"", **fields: Any) -> Member:
    return Member(name=name, data=data, **fields)


def folder(name: str, **fields: Any) -> Member:
    return Member(name=name, kind=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> Member:
    return Member(name=name, kind=tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> Member:
    return Member(name=name, kind=tarfile.LNKTYPE, target=target)


def archive(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a layer's uncompressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as writer:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mode = member.kind, member.target, member.mode
            info.uid, info.gid, info.mtime = member.uid, member.gid, 1_700_000_000
            info.size = len(member.data)
            writer.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def compressed(data: bytes, media_type: str) -> bytes:
    """Return a layer's blob as its media type says."""
    if media_type == LAYER_GZIP:
        return gzip.compress(data, mtime=0)
    return zstd.compress(data) if media_type == LAYER_ZSTD else data


def write(
    path: Path,
    *layers: tuple[bytes, str],
    settings: dict[str, Any] | None = None,
    diff_ids: list[str] | None = None,
    platform: str = f"linux/{MACHINE}",
) -> Digest:
    """Write a layout of one image, its layers from (uncompressed archive, media type)."""
    system, machine = platform.split("/")
    config = {
        "os": system,
        "architecture": machine,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256(data) for data, _ in layers]},
    }
    blobs = [put(path, compressed(data, kind), kind).to_json() for data, kind in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(path, canonical_json(config), CONFIG).to_json(),
        "layers": blobs,
    }
    return listed(path, put(path, canonical_json(manifest), MANIFEST).to_json())


def listed(path: Path, *entries: dict[str, Any]) -> Digest:
    """Write the layout's own list; return the digest of its first entry."""
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    (path / "index.json").write_text(json.dumps(index))
    return Digest(entries[0]["digest"])


def put(path: Path, data: bytes, media_type: str) -> Descriptor:
    described = Descriptor.of(data, media_type)
    place = blob(path, described.digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return described


def blob(path: Path, digest: str) -> Path:
    return path / "blobs" / "sha256" / hex_of(Digest(digest))


def packed(layout: Path, target: Path) -> Path:
    """Write a layout's archive, as `docker save` or skopeo does."""
    with tarfile.open(target, "w") as writer:
        writer.add(layout, arcname=".")
    return target


def reference(digest: str, registry: str = "localhost:1") -> Reference:
    return Reference(registry=registry, repository="t/image", digest=Digest(digest))


def python_image(base: Path, path: Path) -> Digest:
    """Write a small image with python3, of which user, environment and directory are its own.

    Its three layers are compressed in three ways.
    """
    manifest = json.loads(blob(base, _first(base)).read_text())
    (layer,) = manifest["layers"]
    with gzip.open(blob(base, layer["digest"])) as source:
        python = _only(PYTHON, source.read())
    here = archive(folder("srv/here", uid=1000, gid=1000), file("etc/marker", b"second"))
    last = archive(file("etc/marker", b"third", mode=0o640, uid=1000), link("srv/link", "/etc"))
    settings = {
        "Env": ["PATH=/usr/bin", "GREETING=hello you"],
        "WorkingDir": "/srv/here",
        "User": "user",
        "Entrypoint": ["/nonexistent"],
    }
    return write(
        path, (python, LAYER_GZIP), (here, LAYER_ZSTD), (last, LAYER_GZIP), settings=settings
    )


def _first(layout: Path) -> str:
    return str(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])


def _only(pattern: re.Pattern[str], data: bytes) -> bytes:
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as source,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in source:
            if pattern.fullmatch(member.name.removeprefix("./")):
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
    return buffer.getvalue()


def crun(cache: Path) -> Path:
    """Return crun: this machine's own, or Debian's, unpacked once."""
    own = shutil.which("crun")
    if own:
        return Path(own)
    suite = _apt.host_suite()
    prefix = cache / "tests" / f"crun-{suite}"
    program = prefix / "crun"
    if not program.exists():
        shutil.rmtree(prefix, ignore_errors=True)
        prefix.mkdir(parents=True)
        _apt.unpack(CRUN, suite, prefix, prefix / "apt")
        folders = ":".join(str(path) for path in sorted(prefix.glob("**/lib/*-linux-gnu")))
        called = f'LD_LIBRARY_PATH={folders} exec {prefix}/usr/bin/crun "$@"'
        program.write_text(f"#!/bin/sh\n{called}\n")
        program.chmod(0o755)
    return program
