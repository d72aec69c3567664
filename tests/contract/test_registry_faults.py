"""A registry on a bad day: what passes is waited for, what does not is said, nothing is torn."""

from __future__ import annotations

import json
import os
import subprocess
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from curator import provision
from curator.errors import IntegrityError, RefusedError, TemporaryError
from curator.oci import Reference
from curator.provision import _processes
from curator.registry import HttpRegistry
from tests import layouts
from tests.bench.faults import promotions
from tests.faults import (
    WRONG_DIGEST,
    Fault,
    FaultProxy,
    Kind,
    always,
    answer,
    disk_full,
    each_once,
    healthy,
    matching,
    wrong_digest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from curator.oci import Digest
    from curator.settings import Place
    from tests.layouts import Layout

MIB = 1024 * 1024
ONCE = (
    *(answer(status) for status in (408, 500, 503)),
    answer(429, retry_after="0"),
    *(Fault(kind=kind) for kind in (Kind.RESET_BEFORE, Kind.RESET_AFTER, Kind.TRUNCATE)),
)


@pytest.fixture
def registry(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=30)


@pytest.fixture
def impatient(tmp_path: Path) -> HttpRegistry:
    return HttpRegistry(tmp_path / "docker", deadline_s=1)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layouts.attested(tmp_path / "layout", (os.urandom(200_000),))


@pytest.fixture
def proxy(registry_address: str) -> Iterator[FaultProxy]:
    with FaultProxy(registry_address) as running:
        yield running


def publish(registry: HttpRegistry, layout: Layout, staged: Reference, target: Reference) -> Digest:
    """Push to `staged`, promote to `target`'s repository, and set its tag."""
    digest = registry.push(layout.path, staged)
    registry.copy(staged.with_digest(digest), target)
    return registry.tag(target.with_digest(digest), str(target.tag))


# What passes


@pytest.mark.parametrize("fault", ONCE, ids=lambda f: f"{f.kind}-{f.status}")
def test_once(
    fault: Fault, registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    """Every request of a publication fails the first time."""
    staged, target = place.repository("s").with_tag("key"), place.repository("x").with_tag("one")
    proxy.plan = each_once(fault)
    publish(registry, layout, proxy.through(staged), proxy.through(target))
    assert registry.resolve(target) == layout.image.descriptor
    for child in layout.manifests:
        assert registry.manifest(target.with_digest(child.digest)) == child
    assert sum(exchange.fault is not None for exchange in proxy.exchanges) >= 15


@pytest.mark.parametrize(("count", "share"), [(30, 0.2), (8, 0.5)])
def test_promotions_complete_whatever_share_of_requests_fails(
    count: int, share: float, place: Place, tmp_path: Path
) -> None:
    found = promotions(place, tmp_path, count=count, share=share, seed=2026)
    assert found.failures == []
    assert found.complete == count
    assert found.early == []  # no request came before its Retry-After
    assert abs(found.faults / found.requests - share) < 0.1
    assert 0 < found.slow < found.faults / 4  # and so are all other kinds among them


def test_an_upload_that_breaks_goes_on(
    registry: HttpRegistry, place: Place, tmp_path: Path, proxy: FaultProxy
) -> None:
    layout = layouts.image(tmp_path / "big", (os.urandom(4 * MIB),))
    proxy.plan = matching("^PUT .*/blobs/", Fault(kind=Kind.RESET_BEFORE), times=2)
    target = place.repository("x").with_tag("one")
    assert registry.push(layout.path, proxy.through(target)) == layout.digest
    assert registry.resolve(target) == layout.image.descriptor
    opened = [asked for asked in proxy.asked if asked.startswith("POST")]
    assert len(opened) == len(layout.blobs)


def test_a_copy_between_registries_that_breaks_begins_again(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    staged, target = place.repository("s").with_tag("key"), place.repository("x")
    registry.push(layout.path, staged)
    proxy.plan = matching("^GET .*/blobs/", Fault(kind=Kind.TRUNCATE), times=2)
    source = proxy.through(staged).with_digest(layout.digest)
    assert registry.copy(source, target) == layout.digest
    for blob in layout.blobs:
        assert registry.blob(target, blob)


# How long to wait


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_no_request_comes_before_its_retry_after(
    form: str, status: int, registry: HttpRegistry, place: Place, proxy: FaultProxy
) -> None:
    text = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    proxy.plan = matching("^HEAD", answer(status, retry_after=text), times=1)
    assert registry.resolve(proxy.through(place.repository("x").with_tag("one"))) is None
    first, second = (exchange.request.at for exchange in proxy.exchanges)
    assert 1.0 <= second - first < 10


@pytest.mark.parametrize("text", ["3600", "99999999999", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wait_beyond_the_deadline_is_not_waited(
    text: str, registry: HttpRegistry, place: Place, proxy: FaultProxy
) -> None:
    proxy.plan = always(answer(429, retry_after=text))
    start = time.monotonic()
    with pytest.raises(TemporaryError, match="429") as caught:
        registry.resolve(proxy.through(place.repository("x").with_tag("one")))
    assert time.monotonic() - start < 10
    assert len(proxy.asked) == 1
    assert proxy.address in str(caught.value)


def test_the_wait_that_a_registry_asks_for_is_told(
    registry: HttpRegistry, place: Place, proxy: FaultProxy
) -> None:
    proxy.plan = always(answer(429, retry_after="3600"))
    with pytest.raises(TemporaryError, match=r"3600|1 h|60 min"):
        registry.resolve(proxy.through(place.repository("x").with_tag("one")))


# What does not pass


def test_a_registry_that_is_down_is_temporary(impatient: HttpRegistry, place: Place) -> None:
    address = f"127.0.0.1:{_processes.free_port()}"
    reference = Reference(registry=address, repository="x", tag="one")
    start = time.monotonic()
    with pytest.raises(TemporaryError, match=address):
        impatient.resolve(reference)
    with pytest.raises(TemporaryError, match=address):
        impatient.copy(reference, place.repository("x"))
    assert time.monotonic() - start < 15


def test_a_name_that_does_not_resolve_is_temporary(impatient: HttpRegistry) -> None:
    with pytest.raises(TemporaryError, match=r"registry\.invalid"):
        impatient.resolve(Reference.parse("registry.invalid/x:one"))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_error_that_stays_is_temporary_and_quoted(
    status: int, impatient: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    words = {"errors": [{"code": "UNAVAILABLE", "message": "maint\x1b[31m\nenance" + "!" * 5000}]}
    proxy.plan = matching("^POST", answer(status, json.dumps(words).encode()))
    target = proxy.through(place.repository("x").with_tag("one"))
    with pytest.raises(TemporaryError, match=str(status)) as caught:
        impatient.push(layout.path, target)
    message = str(caught.value)
    assert proxy.address in message
    assert "UNAVAILABLE maint" in message
    assert message.isprintable()
    assert len(message) < 700


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_final_and_says_how_to_log_in(
    status: int, registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    proxy.plan = matching("^(POST|PUT)", answer(status))
    start = time.monotonic()
    with pytest.raises(RefusedError, match=f"docker login {proxy.address}"):
        registry.push(layout.path, proxy.through(target))
    assert time.monotonic() - start < 10
    assert registry.resolve(target) is None
    proxy.plan = always(answer(status))
    proxy.forget()
    with pytest.raises(RefusedError, match=f"{status}.*docker login {proxy.address}"):
        registry.resolve(proxy.through(target))
    assert len(proxy.asked) == 1


def test_an_upload_that_never_works_names_the_host_once(
    impatient: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    proxy.plan = matching("^PUT .*/blobs/", Fault(kind=Kind.RESET_BEFORE))
    target = place.repository("x").with_tag("one")
    with pytest.raises(TemporaryError, match=proxy.address):
        impatient.push(layout.path, proxy.through(target))
    assert HttpRegistry().resolve(target) is None


# What is not what it says


def test_a_wrong_digest_is_never_taken_nor_asked_for_again(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    registry.push(layout.path, target)
    seen = proxy.through(target)
    proxy.plan = always(wrong_digest())
    for ask in (
        lambda: registry.resolve(seen.with_digest(layout.digest)),
        lambda: registry.manifest(seen),
    ):
        proxy.forget()
        with pytest.raises(IntegrityError, match=WRONG_DIGEST):
            ask()
        assert len(proxy.asked) == 1


def test_changed_bytes_are_never_taken_nor_asked_for_again(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    registry.push(layout.path, target)
    seen = proxy.through(target)
    proxy.plan = always(Fault(kind=Kind.CORRUPT))
    for ask in (
        lambda: registry.manifest(seen),
        lambda: registry.manifest(seen.with_digest(layout.digest)),
        lambda: registry.tag(seen.with_digest(layout.digest), "two"),
        lambda: registry.copy(seen.with_digest(layout.digest), proxy.through(target)),
        lambda: registry.blob(seen, layout.blobs[0]),
    ):
        proxy.forget()
        with pytest.raises(IntegrityError):
            ask()
        assert len(proxy.asked) == 1
    assert registry.tags(target) == ("one",)


def test_a_tag_that_reads_back_as_another_digest_is_an_error(
    registry: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    registry.push(layout.path, target)
    seen = proxy.through(target)
    proxy.plan = matching("^HEAD .*/manifests/(two|one)$", wrong_digest())
    with pytest.raises(IntegrityError, match=f"{layout.digest}.*{WRONG_DIGEST}"):
        registry.tag(seen.with_digest(layout.digest), "two")
    with pytest.raises(IntegrityError, match=f"{layout.digest}.*{WRONG_DIGEST}"):
        registry.push(layout.path, seen)
    proxy.plan = matching("^HEAD .*/manifests/three", answer(404))
    with pytest.raises(IntegrityError, match=f"{layout.digest}.*nothing"):
        registry.tag(seen.with_digest(layout.digest), "three")


# A full disk


@pytest.fixture
def small_registry(
    small_disk: Path, tmp_path: Path, cache: Path, registry_address: str
) -> Iterator[str]:
    """A registry whose data are on the small disk."""
    assert registry_address  # it brings the registry's program
    root = tmp_path / "registry"
    root.mkdir()
    (root / "data").symlink_to(small_disk)
    yield provision.start_registry(root, cache / "engine/tools", port=_processes.free_port())
    provision.stop_registry(root)


def test_a_full_disk_is_told_and_nothing_is_half_published(
    small_registry: str, small_disk: Path, impatient: HttpRegistry, tmp_path: Path
) -> None:
    target = Reference(registry=small_registry, repository="x", tag="one")
    small = layouts.attested(tmp_path / "small", (b"fits",))
    big = layouts.attested(tmp_path / "big", (os.urandom(3 * MIB), b"second"))
    impatient.push(small.path, target)
    with pytest.raises(TemporaryError, match=r"uploa.*500.*no space left"):
        impatient.push(big.path, target)
    with pytest.raises(TemporaryError):
        impatient.push(big.path, target.with_tag("two"))
    assert impatient.tags(target) == ("one",)
    assert impatient.resolve(target) == small.image.descriptor
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert impatient.push(big.path, target) == big.digest
    assert impatient.resolve(target) == big.image.descriptor


def test_whatever_a_full_disk_tore_is_mended_by_the_next_push_or_told(
    small_registry: str, small_disk: Path, impatient: HttpRegistry, layout: Layout
) -> None:
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    target = Reference(registry=small_registry, repository="x", tag="one")
    impatient.push(layout.path, target)
    files = [path for path in small_disk.rglob("*") if path.is_file()]
    links = [path for path in files if path.name == "link"]
    assert len(links) >= len(layout.blobs) + len(layout.manifests) + 1
    for link in links:
        whole = link.read_bytes()
        link.write_bytes(b"")
        assert impatient.push(layout.path, target) == layout.digest
        assert link.read_bytes() == whole
    for data in sorted(set(files) - set(links)):
        whole = data.read_bytes()
        data.write_bytes(b"")
        with pytest.raises(
            (IntegrityError, TemporaryError), match=rf"{target.registry}.*(500|0 bytes)"
        ):
            impatient.push(layout.path, target)
        data.write_bytes(whole)


def test_a_disk_that_is_full_at_the_last_manifest_leaves_the_old_tag(
    impatient: HttpRegistry, place: Place, tmp_path: Path, layout: Layout, proxy: FaultProxy
) -> None:
    target = place.repository("x").with_tag("one")
    old = layouts.attested(tmp_path / "old", (b"old",))
    impatient.push(old.path, target)
    for write in (layout.manifests[0].digest, layout.manifests[1].digest, "one"):
        proxy.plan = matching(f"^PUT .*/manifests/{write}", disk_full())
        with pytest.raises(TemporaryError, match=f"writing {proxy.address}.*500.*no space left"):
            impatient.push(layout.path, proxy.through(target))
        assert impatient.resolve(target) == old.image.descriptor
    proxy.plan = healthy
    impatient.push(layout.path, proxy.through(target))
    assert impatient.resolve(target) == layout.image.descriptor


def test_a_full_disk_is_called_a_full_disk(
    impatient: HttpRegistry, place: Place, layout: Layout, proxy: FaultProxy
) -> None:
    proxy.plan = matching("^POST", disk_full())
    with pytest.raises(TemporaryError, match=r"no space|disk is full|full disk"):
        impatient.push(layout.path, proxy.through(place.repository("x").with_tag("one")))
