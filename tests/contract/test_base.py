"""Bases made from the distribution's archive: their bytes, and what runs in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator import matrix, provision
from curator.errors import HostError
from curator.lockfile import BaseLock, parse_base
from curator.matrix import base_lock_path
from curator.oci import Platform
from tests import machines
from tests.machines import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from curator.matrix import Base, Tree
    from curator.ports import EngineAddress

NAME = "debian-12"


@pytest.fixture(scope="module")
def base(farm_tree: Tree) -> Base:
    return matrix.bases(farm_tree)[NAME]


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="curator-test-"))
    yield path
    machines.clear(path)


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    algorithm, _, expected = descriptor["digest"].partition(":")
    data = Path(layout, "blobs", algorithm, expected).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (descriptor["size"], expected)
    return data


@pytest.fixture(scope="module")
def manifest(base_layout: Path) -> dict[str, Any]:
    (listed,) = json.loads((base_layout / "index.json").read_bytes())["manifests"]
    found: dict[str, Any] = json.loads(blob(base_layout, listed))
    return found


@pytest.fixture(scope="module")
def root(base_layout: Path, manifest: dict[str, Any]) -> Iterator[tarfile.TarFile]:
    """The root file system's tar."""
    (layer,) = manifest["layers"]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(base_layout, layer)))) as archive:
        yield archive


def test_the_layout_is_an_image_of_one_layer_as_the_lock_says(
    base_layout: Path, manifest: dict[str, Any], base_lock: BaseLock, base: Base
) -> None:
    assert json.loads((base_layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (layer,) = manifest["layers"]
    tar = gzip.decompress(blob(base_layout, layer))
    assert f"sha256:{hashlib.sha256(tar).hexdigest()}" == base_lock.diff_id
    assert len(tar) == base_lock.size_bytes
    config = json.loads(blob(base_layout, manifest["config"]))
    assert config["rootfs"] == {"type": "layers", "diff_ids": [base_lock.diff_id]}
    assert Platform(os=config["os"], architecture=config["architecture"]) == PLATFORM
    assert datetime.fromisoformat(config["created"]) == datetime.fromtimestamp(base.epoch, UTC)
    assert len(list((base_layout / "blobs" / "sha256").iterdir())) == 3


def test_nothing_of_the_building_machine_is_in_it(root: tarfile.TarFile) -> None:
    members = {member.name.removeprefix("./"): member for member in root}
    for name in ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list", "etc/hosts"):
        assert name not in members
    assert members["etc/machine-id"].size == 0
    emptied = ("etc/apt/sources.list.d/", "var/log/", "var/cache/", "var/lib/apt/lists/", "tmp/")
    kept = [m.name for n, m in members.items() if n.startswith(emptied) and m.isfile() and m.size]
    assert kept == []
    naming = [
        name
        for name, member in members.items()
        if name.startswith(("etc/apt/", "var/lib/")) and member.isfile()
        for data in [root.extractfile(member)]
        if data is not None and b"://" in data.read() and not name.startswith("var/lib/dpkg/")
    ]
    assert naming == []


def test_no_time_is_later_than_the_epoch_and_nobody_is_named(
    root: tarfile.TarFile, base: Base
) -> None:
    assert max(member.mtime for member in root) <= base.epoch
    assert {(member.uname, member.gname) for member in root} == {("", "")}


def test_what_is_excluded_is_not_in_it(root: tarfile.TarFile, base: Base) -> None:
    folders = tuple(f".{pattern.removesuffix('*')}" for pattern in base.exclude_paths)
    # Links may stay: dpkg keeps what could lead to a file that is kept.
    found = {m.name for m in root if m.name.startswith(folders) and m.isfile()}
    kept = {name for name in found if any(fnmatch(name, f".{p}") for p in base.keep_paths)}
    assert kept
    assert found - kept <= {"./usr/share/info/dir"}  # made at installation, in no package


def test_everything_asked_for_is_installed(base: Base, base_lock: BaseLock) -> None:
    assert set(base.include) <= {name for name, _ in base_lock.packages}
    assert list(base_lock.packages) == sorted(base_lock.packages)
    assert (base_lock.name, base_lock.platform) == (NAME, str(PLATFORM))


def test_the_same_packages_are_the_same_bytes_as_those_locked(
    farm_tree: Tree, base_lock: BaseLock
) -> None:
    path = base_lock_path(NAME, str(PLATFORM))
    locked = parse_base(farm_tree[path], file=path)
    assert isinstance(locked, BaseLock)
    if locked.packages == base_lock.packages:
        assert locked.diff_id == base_lock.diff_id


# Another host name, resolver and umask, and few of perl's modules, as on a minimal system.
OTHERWISE = """
hostname tracer
umask 002
for folder in /usr/share/perl /usr/lib/*/perl; do
    test ! -d "$folder" || mount -t tmpfs none "$folder"
done
cp /etc/resolv.conf "$TRACES/resolv.conf"
echo 'search tracer.invalid' >> "$TRACES/resolv.conf"
mount --bind "$TRACES/resolv.conf" /etc/resolv.conf
"""


def made_by(answer: machines.Answer) -> BaseLock:
    assert answer.error is None, answer
    lock = parse_base(answer.value["lock"], file="answer")
    assert isinstance(lock, BaseLock)
    return lock


def test_a_machine_that_differs_makes_the_same_bytes(
    directory: Path, base_layout: Path, base_lock: BaseLock, cache: Path
) -> None:
    environment = {"TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8", "TRACES": str(directory)}
    on = machines.changed(OTHERWISE)
    # Everybody may read this directory, and only root the one that `base_layout` was made in.
    directory.chmod(0o755)
    there = (directory / "cache", directory / "there")
    made = made_by(machines.call("base", *there, on=on, environment=environment))
    here, lock = base_layout, base_lock
    if made.packages != lock.packages:  # the archive has moved since `base_layout` was made
        here = directory / "here"
        lock = made_by(machines.call("base", cache, here))
    assert made == lock
    assert (directory / "there" / "index.json").read_bytes() == (here / "index.json").read_bytes()
    assert sorted(path.name for path in (directory / "there").iterdir()) == [
        "blobs",
        "index.json",
        "oci-layout",
    ]


@pytest.fixture(scope="module")
def image(base_layout: Path, engine_address: EngineAddress) -> Iterator[list[str]]:
    """The beginning of a command that runs in a container of the base."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(base_layout, ".")
    docker = [*engine_address.command]
    told = subprocess.run(
        [*docker, "load"], input=buffer.getvalue(), capture_output=True, check=True
    )
    name = told.stdout.decode().split()[-1]
    yield [*docker, "run", "--rm", "--network=none", "--user=1000:1000", name]
    # By force: other tests may have pulled the same image under names of their own.
    subprocess.run([*docker, "image", "rm", "--force", name], capture_output=True, check=True)


def output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


NEEDED = """
import ctypes, getpass, ssl, subprocess, sys
for name in ("libgcc_s.so.1", "libgomp.so.1", "libstdc++.so.6", "libz.so.1"):
    ctypes.CDLL(name)
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
subprocess.run([sys.executable, "-m", "venv", "--without-pip", "/tmp/venv"], check=True)
subprocess.run(["/tmp/venv/bin/python", "-c", "import sqlite3, lzma, zlib"], check=True)
print(getpass.getuser(), *sys.version_info[:2])
"""


def test_what_wheels_need_is_there_for_a_user(image: list[str], base: Base) -> None:
    version = base.python.replace(".", " ")
    assert output([*image, "python3", "-c", NEEDED]) == f"user {version}\n"


def test_the_lock_lists_what_dpkg_lists(image: list[str], base_lock: BaseLock) -> None:
    listed = output([*image, "dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"])
    found = [tuple(line.split(" ")) for line in listed.splitlines()]
    assert sorted(found) == list(base_lock.packages)
    assert output([*image, "dpkg", "--audit"]) == ""


def test_another_architecture_is_refused(base: Base, tmp_path: Path, programs: Path) -> None:
    other = "arm64" if PLATFORM.architecture == "amd64" else "amd64"
    platform = Platform(os="linux", architecture=other)
    with pytest.raises(HostError, match=f"linux/{other} can only be made on such a machine"):
        provision.make_base(base, platform, tmp_path / "layout", cache=programs)
