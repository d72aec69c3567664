"""Image layouts as the bundle runner reads them: what is promised is checked, nothing escapes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curator.errors import HostError, InputError, IntegrityError
from curator.oci import INDEX, LAYER_GZIP, MANIFEST, canonical_json
from curator.runner import BundleRunner
from tests import bundles
from tests.bundles import (
    LAYER,
    LAYER_ZSTD,
    Member,
    archive,
    file,
    folder,
    hard_link,
    link,
    write,
)
from tests.machines import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from curator.oci import Digest

LARGE = 100 * 1024 * 1024

# Stands in for an OCI runtime: it keeps what was unpacked and ends.
RUNTIME = """#!/bin/sh
while [ $# -gt 0 ]; do
  [ "$1" = run ] && running=1
  [ "$1" = --bundle ] && bundle="$2"
  shift
done
[ -z "$running" ] || cp -a "$bundle/root" "$bundle/config.json" {kept}/
"""


class Workbench:
    """A layout to be written, and what the runner unpacks of it."""

    def __init__(self, directory: Path) -> None:
        self.layout, self.work = directory / "layout", directory / "work"
        self.kept, self.outside = directory / "kept", directory / "outside"
        self.kept.mkdir()
        self.outside.mkdir()
        (self.outside / "precious").write_text("precious")
        self.runtime = directory / "runtime"
        self.runtime.write_text(RUNTIME.format(kept=self.kept))
        self.runtime.chmod(0o755)

    @property
    def root(self) -> Path:
        return self.kept / "root"

    def unpack(self, digest: Digest, source: Path | None = None) -> str | None:
        """Unpack an image, and return why it was not to be had."""
        runner = BundleRunner(source or self.layout, self.work, runtime=str(self.runtime))
        try:
            run = runner.run(bundles.reference(digest), "pass", gpus=0, timeout_s=60)
        finally:
            assert list(self.work.glob("run-*")) == []
        return run.failure

    def made(self, *layers: bytes, **options: Any) -> Digest:
        return write(self.layout, *((data, LAYER) for data in layers), **options)

    def tree(self) -> dict[str, str]:
        """Return what was unpacked: path -> kind and contents."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            else:
                found[name] = "/" if path.is_dir() else path.read_text()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    made = Workbench(tmp_path)
    yield made
    assert [path.name for path in made.outside.iterdir()] == ["precious"]
    assert (made.outside / "precious").read_text() == "precious"
    for directory in (made.layout, made.kept):
        shutil.rmtree(directory, ignore_errors=True)


def test_three_compressions_stack_up(bench: Workbench) -> None:
    digest = write(
        bench.layout,
        (archive(file("a", b"plain"), file("b", b"plain")), LAYER),
        (archive(file("b", b"gzip"), file("c", b"gzip")), LAYER_GZIP),
        (archive(file("c", b"zstd"), file("d", b"zstd")), LAYER_ZSTD),
    )
    assert bench.unpack(digest) is None
    assert bench.tree() == {"a": "plain", "b": "gzip", "c": "zstd", "d": "zstd"}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_modes_owners_times_and_links_are_kept(bench: Workbench, form: int) -> None:
    long = "long/" + "n" * 90 + "/" + "m" * (90 if form == tarfile.USTAR_FORMAT else 200)
    data = archive(
        folder(".", mode=0o711),
        folder("home", mode=0o1777),
        file("home/run", b"#!", mode=0o6755, uid=1000, gid=1001),
        hard_link("home/same", "home/run"),
        link("home/link", "../home/run"),
        file(long, b"long"),
        form=form,
    )
    assert bench.unpack(bench.made(data)) is None
    program = (bench.root / "home/run").stat()
    assert stat.S_IMODE(program.st_mode) == 0o6755
    assert (program.st_uid, program.st_gid, program.st_mtime) == (1000, 1001, 1_700_000_000)
    assert (bench.root / "home/same").stat().st_ino == program.st_ino
    assert stat.S_IMODE((bench.root / "home").stat().st_mode) == 0o1777
    assert stat.S_IMODE(bench.root.stat().st_mode) == 0o711
    assert (bench.root / "home/link").readlink() == Path("../home/run")
    assert (bench.root / long).read_text() == "long"


def test_a_fifo_is_made_and_a_device_is_left_out(bench: Workbench) -> None:
    data = archive(
        Member(name="pipe", kind=tarfile.FIFOTYPE),
        Member(name="disk", kind=tarfile.BLKTYPE, mode=0o666),
        Member(name="null", kind=tarfile.CHRTYPE, mode=0o666),
    )
    assert bench.unpack(bench.made(data)) is None
    assert [path.name for path in bench.root.iterdir()] == ["pipe"]
    assert (bench.root / "pipe").is_fifo()


def test_whiteouts_hide_files_and_whole_directories(bench: Workbench) -> None:
    lower = archive(file("a/x", b"x"), file("a/y", b"y"), file("b/c/d", b"d"), file("e", b"e"))
    upper = archive(file("a/.wh.x"), file(".wh.b"), file(".wh.nothing"), file("gone/.wh.x"))
    assert bench.unpack(bench.made(lower, upper)) is None
    assert bench.tree() == {"a": "/", "a/y": "y", "e": "e"}


@pytest.mark.parametrize("marker_first", [True, False])
def test_an_opaque_directory_shows_only_its_own_layer(
    bench: Workbench,
    marker_first: bool,  # noqa: FBT001 - both orders
) -> None:
    lower = archive(file("d/old", b"1"), file("d/sub/old", b"1"), file("d/sub/both", b"1"))
    own = [file("d/new", b"2"), file("d/sub/both", b"2")]
    marker = file("d/.wh..wh..opq")
    upper = archive(*([marker, *own] if marker_first else [*own, marker]))
    assert bench.unpack(bench.made(lower, upper)) is None
    assert bench.tree() == {"d": "/", "d/new": "2", "d/sub": "/", "d/sub/both": "2"}


def test_a_whiteout_does_not_hide_what_its_own_layer_holds(bench: Workbench) -> None:
    upper = archive(file("a", b"2"), file(".wh.a"), file("b/c", b"2"), file(".wh.b"))
    assert bench.unpack(bench.made(archive(file("a", b"1"), file("b/d", b"1")), upper)) is None
    assert bench.tree() == {"a": "2", "b": "/", "b/c": "2"}


def test_kinds_replace_each_other(bench: Workbench) -> None:
    lower = archive(
        file("a/x", b"1"),
        file("b", b"1"),
        link("c", "a"),
        folder("d"),
        file("d/k", b"1"),
        file("e"),
    )
    upper = archive(
        file("a", b"2"), folder("b"), file("b/x", b"2"),
        folder("c"), file("c/x", b"2"), folder("d"), hard_link("e", "c/x"),
    )  # fmt: skip
    assert bench.unpack(bench.made(lower, upper)) is None
    expected = {"a": "2", "b": "/", "b/x": "2", "c": "/", "c/x": "2", "d": "/", "d/k": "1"}
    assert bench.tree() == {**expected, "e": "2"}


def test_linked_parents_are_followed_inside_the_image(bench: Workbench) -> None:
    lower = archive(
        folder("usr/lib"), link("lib", "usr/lib"), link("var/run", "/run"), folder("run"),
        link("deep/up", "../usr"), link("far", "/made/later"),
    )  # fmt: skip
    upper = archive(
        file("lib/x", b"1"), file("var/run/y", b"2"), file("deep/up/z", b"3"), file("far/w", b"4")
    )
    assert bench.unpack(bench.made(lower, upper)) is None
    tree = bench.tree()
    assert [tree[name] for name in ("usr/lib/x", "run/y", "usr/z", "made/later/w")] == list("1234")
    assert tree["lib"] == "-> usr/lib"


ESCAPES: dict[str, Callable[[str], list[Member]]] = {
    "absolute": lambda out: [file(f"{out}/evil", b"x")],
    "dotted": lambda _: [file("../outside/evil", b"x")],
    "dotted inside": lambda _: [file("a/../../../outside/evil", b"x")],
    "climbing link": lambda _: [link("l", "../../outside"), file("l/evil", b"x")],
    "two links": lambda _: [
        folder("d"), link("d/one", ".."), link("two", "d/one/../.."), file("two/outside/evil", b"x")
    ],
    "hard link out": lambda out: [hard_link("l", f"{out}/precious"), file("l", b"x")],
    "dotted hard link": lambda _: [hard_link("l", "../../outside/precious")],
    "hard link by a link": lambda _: [link("l", "../../outside"), hard_link("p", "l/precious")],
    "hard link to a directory": lambda _: [folder("d"), hard_link("l", "d")],
    "hard link to nothing": lambda _: [hard_link("l", "missing")],
    "whiteout of the parent": lambda _: [file("d/.wh..."), file("x")],
    "whiteout of itself": lambda _: [file("d/x"), file("d/.wh..")],
    "nameless whiteout": lambda _: [file("d/x"), file("d/.wh.")],
    "links in a circle": lambda _: [link("a", "b"), link("b", "a"), file("a/x")],
    "a file as a parent": lambda _: [file("f"), file("f/x")],
    "too deep": lambda _: [file("/".join("d" * 300))],
    "deeper by links": lambda _: [
        folder("/".join("d" * 100)),
        link("l", "/".join("d" * 100)),
        folder("l/" + "/".join("e" * 100)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ESCAPES))
def test_what_wants_to_leave_is_refused(bench: Workbench, name: str) -> None:
    data = archive(folder("d"), *ESCAPES[name](str(bench.outside)))
    with pytest.raises(IntegrityError):
        bench.unpack(bench.made(data))
    assert not bench.root.exists()


def test_a_link_out_is_written_over_not_through(bench: Workbench) -> None:
    precious = f"{bench.outside}/precious"
    lower = archive(link("a", precious), link("d", str(bench.outside)))
    upper = archive(file("a", b"mine"), folder("d", mode=0o700), file("d/x", b"mine"))
    assert bench.unpack(bench.made(lower, upper)) is None
    assert bench.tree() == {"a": "mine", "d": "/", "d/x": "mine"}


def test_an_absolute_link_leads_to_the_images_own_directory(bench: Workbench) -> None:
    data = archive(link("l", str(bench.outside)), file("l/evil", b"inside"))
    assert bench.unpack(bench.made(data)) is None
    inside = str(bench.outside).lstrip("/")
    assert (bench.root / inside / "evil").read_text() == "inside"


def test_a_tampered_blob_is_found_before_it_is_used(bench: Workbench) -> None:
    digest = bench.made(archive(file("a", b"good")))
    manifest = json.loads(bundles.blob(bench.layout, digest).read_text())
    for described in (manifest["layers"][0], manifest["config"], {"digest": digest}):
        place = bundles.blob(bench.layout, described["digest"])
        good = place.read_bytes()
        for bad in (good.replace(b"o", b"x", 1), good[:-1], good + b" "):
            place.write_bytes(bad)
            with pytest.raises(IntegrityError, match="others"):
                bench.unpack(digest)
        place.write_bytes(good)
    assert not bench.root.exists()
    assert bench.unpack(digest) is None


@pytest.mark.parametrize("part", ["layers", "config"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_missing_blob_is_the_layouts_fault(
    bench: Workbench,
    tmp_path: Path,
    part: str,
    packed: bool,  # noqa: FBT001 - archive or directory
) -> None:
    digest = bench.made(archive(file("a", b"good")))
    manifest = json.loads(bundles.blob(bench.layout, digest).read_text())
    described = manifest[part] if part == "config" else manifest[part][0]
    bundles.blob(bench.layout, described["digest"]).unlink()
    source = bundles.packed(bench.layout, tmp_path / "i.tar") if packed else bench.layout
    with pytest.raises(IntegrityError, match="is missing"):
        bench.unpack(digest, source)


def test_layers_that_hold_something_else_than_the_config_says_are_refused(bench: Workbench) -> None:
    wrong = "sha256:" + "1" * 64
    with pytest.raises(IntegrityError, match="its image says sha256:1111"):
        bench.unpack(bench.made(archive(file("a", b"1")), diff_ids=[wrong]))
    with pytest.raises(IntegrityError, match="counts other layers"):
        bench.unpack(bench.made(archive(file("a", b"1")), diff_ids=[wrong, wrong]))


def test_an_archive_is_as_good_as_a_directory_and_a_truncated_one_is_refused(
    bench: Workbench, tmp_path: Path
) -> None:
    digest = write(
        bench.layout,
        (archive(file("a", os.urandom(100_000).hex().encode())), LAYER_GZIP),
        (archive(file("b", b"zstd")), LAYER_ZSTD),
    )
    packed = bundles.packed(bench.layout, tmp_path / "image.tar")
    assert bench.unpack(digest, packed) is None
    assert bench.tree()["b"] == "zstd"
    whole = packed.read_bytes()
    for size in range(600, len(whole) - 10240, len(whole) // 12):
        packed.write_bytes(whole[:size])
        with pytest.raises((IntegrityError, InputError)):
            bench.unpack(digest, packed)


def test_an_index_leads_to_this_platforms_image(bench: Workbench) -> None:
    other = "arm64" if MACHINE == "amd64" else "amd64"
    theirs = write(bench.layout, (archive(file("a", b"theirs")), LAYER), platform=f"linux/{other}")
    ours = bench.made(archive(file("a", b"ours")))
    attestation = bench.made(archive(file("a", b"attestation")), settings={"Labels": {}})
    platform = {"os": "linux", "architecture": MACHINE}
    entries = [
        {
            **entry(bench.layout, attestation),
            "platform": platform,
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
        {**entry(bench.layout, theirs), "platform": {"os": "linux", "architecture": other}},
        {**entry(bench.layout, ours), "platform": {**platform, "variant": "v1"}},
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    inner = bundles.put(bench.layout, canonical_json(index), INDEX)
    outer = {**index, "manifests": [inner.to_json()]}
    digest = bundles.put(bench.layout, canonical_json(outer), INDEX).digest
    for found in (digest, inner.digest, ours):
        assert bench.unpack(found) is None
        assert bench.tree() == {"a": "ours"}
    told = bench.unpack(theirs)
    assert told is not None
    assert f"linux/{other}" in told


def test_an_index_of_other_platforms_could_not_start(bench: Workbench) -> None:
    ours = bench.made(archive(file("a")))
    listed = {**entry(bench.layout, ours), "platform": {"os": "linux", "architecture": "s390x"}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]}
    told = bench.unpack(bundles.put(bench.layout, canonical_json(index), INDEX).digest)
    assert told is not None
    assert "lists no image for linux/" in told


def entry(layout: Path, digest: Digest) -> dict[str, Any]:
    return {
        "mediaType": MANIFEST,
        "digest": digest,
        "size": bundles.blob(layout, digest).stat().st_size,
    }


HOSTILE = {
    "no tar": b"x" * 4096,
    "garbage after a member": archive(file("a", b"1"))[:1024] + b"x" * 2048,
    "ends in a file": archive(file("a", b"1" * 5000))[:2000],
    "ends in a header": archive(file("a", b"1" * 512))[:1300] + b"x",
    "a device that is none": archive(Member(name="a", kind=b"Z")),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.parametrize("kind", [LAYER, LAYER_GZIP, LAYER_ZSTD])
def test_a_layer_that_is_no_archive_is_refused(bench: Workbench, name: str, kind: str) -> None:
    with pytest.raises(IntegrityError):
        bench.unpack(write(bench.layout, (HOSTILE[name], kind)))


@pytest.mark.parametrize("kind", [LAYER_GZIP, LAYER_ZSTD])
def test_a_layer_that_is_not_compressed_as_it_says_is_refused(bench: Workbench, kind: str) -> None:
    data = archive(file("a", os.urandom(50_000)))
    for blob in (data, bundles.compressed(data, kind)[:-20]):
        described = bundles.put(bench.layout, blob, kind)
        digest = write(bench.layout, (data, LAYER))
        manifest = json.loads(bundles.blob(bench.layout, digest).read_text())
        manifest["layers"] = [described.to_json()]
        changed = bundles.put(bench.layout, canonical_json(manifest), MANIFEST)
        with pytest.raises(IntegrityError):
            bench.unpack(changed.digest)


def test_an_unknown_kind_of_layer_is_refused(bench: Workbench) -> None:
    with pytest.raises(IntegrityError, match=r"not a layer .* application/x-rar"):
        bench.unpack(write(bench.layout, (archive(file("a")), "application/x-rar")))


def test_a_header_of_any_size_takes_no_memory(bench: Workbench) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 200 * 1024 * 1024
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(info.size)
    digest = write(bench.layout, (data, LAYER_ZSTD))
    with bounded_memory(), pytest.raises(IntegrityError, match="a header of"):
        bench.unpack(digest)


@pytest.mark.parametrize("kind", [LAYER, LAYER_GZIP, LAYER_ZSTD])
def test_a_large_file_takes_little_memory(bench: Workbench, kind: str) -> None:
    digest = write(bench.layout, (archive(file("zeros", bytes(LARGE))), kind))
    with bounded_memory():
        assert bench.unpack(digest) is None
    assert (bench.root / "zeros").stat().st_size == LARGE


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if Python takes more than 16 MiB at once meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("oci-layout", None),
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}'),
        ("oci-layout", "[]"),
        ("index.json", None),
        ("index.json", "{"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_layout_is_bad_input(
    bench: Workbench,
    tmp_path: Path,
    name: str,
    text: str | None,
    packed: bool,  # noqa: FBT001 - archive or directory
) -> None:
    digest = bench.made(archive(file("a")))
    place = bench.layout / name
    place.write_text(text) if text is not None else place.unlink()
    source = bundles.packed(bench.layout, tmp_path / "i.tar") if packed else bench.layout
    with pytest.raises(InputError, match="not an OCI image layout"):
        bench.unpack(digest, source)


def test_a_path_with_nothing_is_bad_input(bench: Workbench, tmp_path: Path) -> None:
    digest = bench.made(archive(file("a")))
    with pytest.raises(InputError, match="No such file"):
        bench.unpack(digest, tmp_path / "absent.tar")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, [])),
        ("ann", (7, 70, [71, 72])),
        ("7", (7, 70, [71, 72])),
        ("ann:wheel", (7, 71, [])),
        ("9:10", (9, 10, [])),
        ("9", (9, 0, [])),
    ],
)
def test_users_are_looked_up_in_the_image(
    bench: Workbench, user: str, expected: tuple[int, int, list[int]]
) -> None:
    data = archive(
        link("etc", "usr/etc"),
        file(
            "usr/etc/passwd", b"root:x:0:0::/root:/bin/sh\nbroken\nann:x:7:70::/home/ann:/bin/sh\n"
        ),
        link("usr/etc/group", "/usr/etc/groups"),
        file("usr/etc/groups", b"wheel:x:71:bob,ann\nvideo:x:72:ann\nother:x:73:bob\n"),
    )
    assert bench.unpack(bench.made(data, settings={"User": user, "Env": None})) is None
    found = json.loads((bench.kept / "config.json").read_text())["process"]["user"]
    assert (found["uid"], found["gid"], found["additionalGids"]) == expected


def test_an_unknown_user_could_not_start(bench: Workbench) -> None:
    outside = archive(link("etc/passwd", f"{bench.outside}/precious"))
    told = bench.unpack(bench.made(outside, settings={"User": "precious"}))
    assert told == "the image has no user 'precious'"


def test_a_working_directory_is_made_inside_the_image(bench: Workbench) -> None:
    data = archive(link("srv", str(bench.outside)), file("f"))
    assert bench.unpack(bench.made(data, settings={"WorkingDir": "srv/here/"})) is None
    inside = str(bench.outside).lstrip("/")
    assert (bench.root / inside / "here").is_dir()
    found = json.loads((bench.kept / "config.json").read_text())["process"]["cwd"]
    assert found == "/srv/here"
    for bad in ("/f/x", "/../../outside/x"):
        with pytest.raises(IntegrityError):
            bench.unpack(bench.made(data, settings={"WorkingDir": bad}))


def test_unpacking_can_be_stopped(bench: Workbench) -> None:
    cancelled = threading.Event()
    cancelled.set()
    runner = BundleRunner(bench.layout, bench.work, cancelled, runtime=str(bench.runtime))
    digest = bench.made(archive(*(file(f"f{number}") for number in range(100))))
    run = runner.run(bundles.reference(digest), "pass", gpus=0, timeout_s=60)
    assert run.failure == "the run was stopped"
    assert list(bench.work.glob("run-*")) == []


def test_no_room_is_the_hosts_lack(bench: Workbench, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with mounted(small, "1m"):
        digest = bench.made(archive(file("a", bytes(4 * 1024 * 1024))))
        runner = BundleRunner(bench.layout, small / "work", runtime=str(bench.runtime))
        with pytest.raises(HostError, match="No space left"):
            runner.run(bundles.reference(digest), "pass", gpus=0, timeout_s=60)
        assert list((small / "work").glob("run-*")) == []


@contextlib.contextmanager
def mounted(place: Path, size: str) -> Iterator[None]:

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
