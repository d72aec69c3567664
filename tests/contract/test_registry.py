"""The registry port against a real registry: what arrives, in which order, at which cost."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import tracemalloc
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from curator.errors import CuratorError, IntegrityError, RefusedError
from curator.oci import MANIFEST_TYPES, Descriptor, Reference, sha256
from curator.registry import HttpRegistry
from tests import layouts
from tests.faults import Fault, FaultProxy, Kind, always, answer, matching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from curator.settings import Place
    from tests.layouts import Layout

MIB = 1024 * 1024
TWO = (b"first layer", b"second layer")


@pytest.fixture
def registry(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=20)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layouts.attested(tmp_path / "layout", TWO)


@pytest.fixture
def proxy(registry_address: str) -> Iterator[FaultProxy]:
    with FaultProxy(registry_address) as running:
        yield running


def served(reference: Reference, kind: str, name: str) -> bytes:
    """Read with another client than ours."""
    url = f"http://{reference.registry}/v2/{reference.repository}/{kind}/{name}"
    request = urllib.request.Request(url, headers={"Accept": ", ".join(MANIFEST_TYPES)})
    with urllib.request.urlopen(request) as response:  # noqa: S310 - loopback
        return bytes(response.read())


def assert_whole(reference: Reference, layout: Layout) -> None:
    """Every manifest and blob of the image is in the repository, byte for byte."""
    for manifest in layout.manifests:
        assert served(reference, "manifests", manifest.digest) == manifest.data
    for blob in layout.blobs:
        assert sha256(served(reference, "blobs", blob.digest)) == blob.digest


def bodies(proxy: FaultProxy) -> int:
    return sum(exchange.received + exchange.sent for exchange in proxy.exchanges)


# What is there


@pytest.mark.parametrize("make", [layouts.image, layouts.attested])
def test_push_puts_a_whole_image_under_its_tag(
    make: Callable[..., Layout], registry: HttpRegistry, place: Place, tmp_path: Path
) -> None:
    layout, target = make(tmp_path / "layout", TWO), place.repository("push").with_tag("one")
    assert registry.push(layout.path, target) == layout.digest
    assert registry.resolve(target) == layout.image.descriptor
    assert registry.manifest(target) == layout.image
    assert registry.tags(target) == ("one",)
    assert_whole(target, layout)


def test_push_again_sends_no_blob(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = proxy.through(place.repository("push").with_tag("one"))
    registry.push(layout.path, target)
    proxy.forget()
    assert registry.push(layout.path, target) == layout.digest
    assert not [asked for asked in proxy.asked if asked.startswith("POST")]
    assert {asked.split("/")[-2] for asked in proxy.asked if asked[:3] == "PUT"} == {"manifests"}


def test_push_sends_only_the_layers_that_are_missing(
    registry: HttpRegistry, place: Place, tmp_path: Path, proxy: FaultProxy
) -> None:
    target = proxy.through(place.repository("push").with_tag("one"))
    shared = os.urandom(MIB)
    registry.push(layouts.image(tmp_path / "a", (shared, b"a")).path, target)
    proxy.forget()
    registry.push(layouts.image(tmp_path / "b", (shared, b"b")).path, target)
    assert bodies(proxy) < MIB // 10


def test_what_is_not_there_is_none(registry: HttpRegistry, place: Place, layout: Layout) -> None:
    repository = place.repository("absent")
    assert registry.resolve(repository.with_tag("one")) is None
    assert registry.tags(repository) == ()
    registry.push(layout.path, repository.with_tag("one"))
    assert registry.resolve(repository.with_tag("two")) is None
    assert registry.resolve(repository.with_digest(sha256(b"other"))) is None
    with pytest.raises(RefusedError, match="two"):
        registry.manifest(repository.with_tag("two"))


def test_blob_returns_an_image_configuration(
    registry: HttpRegistry, place: Place, layout: Layout
) -> None:
    target = place.repository("blob").with_tag("one")
    registry.push(layout.path, target)
    config, *_ = layout.manifests[0].blobs
    labels = json.loads(registry.blob(target, config))["config"]["Labels"]
    assert labels == {"made": "by hand"}


def test_blob_refuses_what_is_not_as_described(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = proxy.through(place.repository("blob").with_tag("one"))
    registry.push(layout.path, target)
    config, *_ = layout.manifests[0].blobs
    for size in (config.size - 1, config.size + 1):
        wrong = Descriptor(media_type=config.media_type, digest=config.digest, size=size)
        with pytest.raises(IntegrityError):
            registry.blob(target, wrong)
    proxy.forget()
    with pytest.raises(IntegrityError, match="too many"):
        registry.blob(target, Descriptor(media_type="x", digest=config.digest, size=4 * 1024 * MIB))
    assert proxy.asked == []


# Promotion


def test_copy_keeps_every_digest_and_sets_no_tag(
    registry: HttpRegistry, place: Place, layout: Layout
) -> None:
    staged, target = place.repository("staging/x").with_tag("key"), place.repository("x")
    registry.push(layout.path, staged)
    assert registry.copy(staged.with_digest(layout.digest), target) == layout.digest
    assert registry.tags(target) == ()
    assert_whole(target, layout)
    assert registry.tag(target.with_digest(layout.digest), "1.0") == layout.digest
    assert registry.tags(target) == ("1.0",)


def test_copy_and_tag_again_change_nothing(
    registry: HttpRegistry, place: Place, layout: Layout
) -> None:
    staged, target = place.repository("staging/x").with_tag("key"), place.repository("x")
    registry.push(layout.path, staged)
    for _ in range(2):
        registry.copy(staged.with_digest(layout.digest), target)
        registry.tag(target.with_digest(layout.digest), "1.0")
    assert registry.tags(target) == ("1.0",)
    assert registry.resolve(target.with_tag("1.0")) == layout.image.descriptor


def test_tag_moves_and_the_old_image_stays(
    registry: HttpRegistry, place: Place, tmp_path: Path
) -> None:
    target = place.repository("x").with_tag("moving")
    old = layouts.attested(tmp_path / "old", (b"old",))
    new = layouts.attested(tmp_path / "new", (b"new",))
    registry.push(old.path, target)
    registry.push(new.path, target.with_tag("other"))
    registry.tag(target.with_digest(new.digest), "moving")
    assert registry.resolve(target) == new.image.descriptor
    assert registry.resolve(target.with_digest(old.digest)) == old.image.descriptor


def test_a_registry_that_does_not_mount_gets_the_blobs_and_no_open_upload(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    staged = place.repository("staging/x").with_tag("key")
    registry.push(layout.path, staged)
    proxy.plan = matching("^POST .*mount=", Fault(kind=Kind.NO_MOUNT))
    source = proxy.through(staged).with_digest(layout.digest)
    target = place.repository("x")
    assert registry.copy(source, proxy.through(target)) == layout.digest
    assert_whole(target, layout)
    opened = [e for e in proxy.exchanges if e.request.method == "POST" and e.status == 202]
    closed = [e for e in proxy.exchanges if e.request.method == "DELETE" and e.status == 204]
    filled = [a for a in proxy.asked if a.startswith("PUT") and "/blobs/uploads/" in a]
    assert len(opened) == len(closed) + len(filled)
    assert len(closed) == len(layout.blobs)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422, 501])
def test_a_registry_that_refuses_a_mount_gets_the_blobs(
    status: int, registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    staged, target = place.repository("staging/x").with_tag("key"), place.repository("x")
    registry.push(layout.path, staged)
    proxy.plan = matching("^POST .*mount=", answer(status))
    registry.copy(proxy.through(staged).with_digest(layout.digest), proxy.through(target))
    assert_whole(target, layout)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_what_was_written_counts_whatever_the_word_for_it(
    status: int, registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    proxy.plan = matching("^PUT", Fault(kind=Kind.RENAME, status=status))
    assert registry.push(layout.path, proxy.through(target)) == layout.digest
    assert_whole(target, layout)


@pytest.mark.parametrize("what", ["blobs", "manifests"])
def test_a_word_for_success_is_not_believed(
    what: str, registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    proxy.plan = matching(f"^PUT .*/{what}/", answer(200, b"<html>log in, please</html>"))
    with pytest.raises((IntegrityError, RefusedError)):
        registry.push(layout.path, proxy.through(target))
    assert registry.resolve(target) is None


@pytest.mark.parametrize(
    "header",
    [
        {"Content-Length": "0"},
        {"Content-Length": "many"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": ""},
        {"Docker-Content-Digest": ""},
    ],
    ids=lambda header: "-".join(*header.items()),
)
def test_what_is_not_told_of_a_manifest_is_read(
    header: dict[str, str],
    registry: HttpRegistry,
    place: Place,
    layout: Layout,
    proxy: FaultProxy,
) -> None:
    target = place.repository("x").with_tag("one")
    registry.push(layout.path, target)
    proxy.plan = matching("^HEAD", Fault(kind=Kind.LIE, headers=header))
    assert registry.resolve(proxy.through(target)) == layout.image.descriptor
    assert [asked.split()[0] for asked in proxy.asked] == ["HEAD", "GET"]


def test_copy_between_registries_streams_blob_by_blob(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    staged = place.repository("staging/x").with_tag("key")
    registry.push(layout.path, staged)
    source = proxy.through(staged).with_digest(layout.digest)
    assert registry.copy(source, place.repository("elsewhere")) == layout.digest
    assert_whole(place.repository("elsewhere"), layout)
    assert {asked.split()[0] for asked in proxy.asked} == {"GET"}


def test_a_copy_of_what_is_not_there_is_refused(registry: HttpRegistry, place: Place) -> None:
    absent = place.repository("absent").with_digest(sha256(b"never pushed"))
    with pytest.raises(RefusedError, match="absent"):
        registry.copy(absent, place.repository("x"))
    with pytest.raises(RefusedError, match="absent"):
        registry.tag(absent, "1.0")


def test_a_push_without_a_tag_or_digest_writes_no_tag(
    registry: HttpRegistry, place: Place, layout: Layout
) -> None:
    with contextlib.suppress(CuratorError, ValueError):
        registry.push(layout.path, place.repository("untagged"))
    assert registry.tags(place.repository("untagged")) == ()


# What readers see meanwhile


@contextlib.contextmanager
def watched(reference: Reference, docker_config: Path) -> Iterator[set[str | None]]:
    """Ask for a tag over and over; give the set of digests that were seen."""
    seen: set[str | None] = set()
    stop = threading.Event()
    reader = HttpRegistry(docker_config)

    def watch() -> None:
        while not stop.is_set():
            found = reader.resolve(reference)
            seen.add(found.digest if found else None)

    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(watch) for _ in range(2)]
        try:
            yield seen
        finally:
            stop.set()
            for future in futures:
                future.result()


def test_a_tag_never_shows_a_part_of_an_image(
    registry: HttpRegistry, place: Place, tmp_path: Path
) -> None:
    target, staged = place.repository("x").with_tag("moving"), place.repository("staging/x")
    images = [layouts.attested(tmp_path / str(n), (b"%d" % n, os.urandom(MIB))) for n in range(6)]
    with watched(target, tmp_path / "docker") as seen:
        for number, layout in enumerate(images):
            if number % 2:
                registry.push(layout.path, target)
            else:
                registry.push(layout.path, staged.with_tag(str(number)))
                registry.copy(staged.with_digest(layout.digest), target)
                registry.tag(target.with_digest(layout.digest), "moving")
    assert seen <= {None, *(layout.digest for layout in images)}
    assert len(seen) > 2


def test_the_tag_comes_last(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    registry.push(layout.path, proxy.through(place.repository("x").with_tag("one")))
    writes = [asked for asked in proxy.asked if asked[:3] == "PUT"]
    *others, tagged = writes
    assert tagged.endswith("/manifests/one")
    kinds = ["manifest" if "/manifests/" in asked else "blob" for asked in others]
    assert kinds == ["blob"] * len(layout.blobs) + ["manifest"] * 2


def test_a_push_that_cannot_finish_sets_no_tag(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    refused = Fault(kind=Kind.ANSWER, status=403)
    proxy.plan = matching(f"^PUT .*{layout.manifests[1].digest}", refused)
    with pytest.raises(RefusedError):
        registry.push(layout.path, proxy.through(target))
    assert registry.resolve(target) is None
    proxy.plan = matching("^PUT .*/blobs/", refused, times=1)
    other = layouts.image(layout.path.parent / "other", [b"%d" % n for n in range(5)])
    with pytest.raises(RefusedError):
        registry.push(other.path, proxy.through(target))
    assert registry.resolve(target) is None


# Several at once, and big ones


def test_many_threads_share_one_client(
    registry: HttpRegistry, place: Place, tmp_path: Path
) -> None:
    shared = os.urandom(MIB)
    images = [layouts.attested(tmp_path / str(n), (shared, b"%d" % n)) for n in range(12)]
    staging = place.repository("staging/x")
    targets = [place.repository(f"x{number}") for number in range(len(images))]

    def publish(number: int) -> str:
        digest = registry.push(images[number].path, staging.with_tag(str(number)))
        registry.copy(staging.with_digest(digest), targets[number])
        return registry.tag(targets[number].with_digest(digest), "one")

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(publish, range(len(images))))
    assert digests == [layout.digest for layout in images]
    for target, layout in zip(targets, images, strict=True):
        assert registry.resolve(target.with_tag("one")) == layout.image.descriptor


def test_a_blob_that_another_writer_links_anew_is_only_gone_for_a_moment(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    # distribution 2.8 empties a link before it writes it again: seen in 4 % of promotions by
    # 8 writers into one repository.
    errors = [{"code": "DIGEST_INVALID"}, {"code": "MANIFEST_BLOB_UNKNOWN", "message": "unknown"}]
    staged, target = place.repository("staging/x").with_tag("key"), place.repository("x")
    registry.push(layout.path, staged)
    gone = answer(400, json.dumps({"errors": errors}).encode())
    proxy.plan = matching("^PUT .*/manifests/", gone, times=1)
    registry.copy(proxy.through(staged).with_digest(layout.digest), proxy.through(target))
    assert_whole(target, layout)


def test_big_blobs_are_never_whole_in_memory(
    registry: HttpRegistry, place: Place, tmp_path: Path, proxy: FaultProxy
) -> None:
    layout = layouts.image(tmp_path / "big", (os.urandom(48 * MIB),))
    staged = place.repository("staging/x").with_tag("key")
    tracemalloc.start()
    try:
        registry.push(layout.path, staged)
        source = proxy.through(staged).with_digest(layout.digest)
        registry.copy(source, place.repository("elsewhere"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


def test_a_copy_between_registries_checks_what_it_carries(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    staged = place.repository("staging/x").with_tag("key")
    registry.push(layout.path, staged)
    proxy.plan = matching("^GET .*/blobs/", Fault(kind=Kind.CORRUPT))
    source = proxy.through(staged).with_digest(layout.digest)
    with pytest.raises(CuratorError):
        registry.copy(source, place.repository("elsewhere"))
    assert registry.resolve(place.repository("elsewhere").with_digest(layout.digest)) is None
    proxy.plan = always(Fault(kind=Kind.CORRUPT))
    with pytest.raises(IntegrityError):
        registry.copy(source, place.repository("elsewhere"))
